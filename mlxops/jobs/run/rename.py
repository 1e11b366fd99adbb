"""Giving a run another name: its folder moves with its row.

The folder is moved within the registry's transaction, and what the folder says of its run is written last. A kill
leaves one run: under its old name, its new one, or its old name with its folder under the new one. The same command
completes that, and a resume takes it as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, layout, registry, texts
from mlxops.adapters import adapter_config
from mlxops.config import RenameConfig
from mlxops.errors import Failed, Refused
from mlxops.jobs.train import claim, latest
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import FoundRun, NewName, waiting
from mlxops.registry.opening import reading, writing
from mlxops.training import lock


@dataclass(frozen=True, kw_only=True)
class RenamedRun:
    """A run under its new name: what it was called, its folder, whether that was moved, and why not if it was not."""

    run: str
    was: str
    folder: str
    is_moved: bool
    notes: tuple[str, ...]


def rename(invocation: Invocation, config: RenameConfig) -> RenamedRun:
    """Give a run another name, and its folder with it where that has the run's name.

    Raises `BadRequest` for a name that no run can have, `Refused` for one that is taken, `Busy` where the run or a
    branch of it is at work.
    """
    project = invocation.project
    name = texts.check_name(config.to.strip(), texts.RUN)
    with reading(project.registry_path) as db:
        registry.find_run(db, config.name)  # before a lock is made in a folder that is no project's
    holder = claim.holder(invocation.command or "")
    with writing(project.registry_path) as db, claim.deciding(project, holder):
        run = registry.find_run(db, config.name)
        registry.check_renamable(db, run["id"], name)
        old, new, notes = _places(project, run, name)
        if run["name"] == name and old == new:
            return RenamedRun(run=name, was=name, folder=run["adapter_path"], is_moved=False, notes=("nothing to do",))
        change = NewName(
            was=run["name"],
            name=name,
            before=run["adapter_path"],
            after=project.relative(new) if old != new else run["adapter_path"],
        )
        with ExitStack() as held:
            if (place := new if new.is_dir() else old).is_dir() and run["imported_from"] is None:
                held.enter_context(lock.hold(place / lock.NAME, holder, what=f"the run {run['name']!r}"))
                if waiting.kept(place):
                    raise Refused(
                        f"history of the run {run['name']!r} waits in its folder for the registry",
                        hint="the command that trains it brings it in",
                    )
            with _moving(old, new) as move:
                rows = registry.rename_run(db, run["id"], change, move)
            for row in rows:
                _describe(project.from_root(row["adapter_path"]), change, is_own=row["id"] == run["id"])
        link = project.adapters_folder / "latest"
        if link.is_symlink() and str(link.readlink()) == old.name != new.name:
            latest.point_at(project, new)
    return RenamedRun(run=name, was=run["name"], folder=change.after, is_moved=old != new, notes=notes)


def _places(project: Project, run: FoundRun, name: str) -> tuple[Path, Path, tuple[str, ...]]:
    """Where the run's folder is and where it belongs, and why that is the same place where it stays.

    Raises `Refused` where something else stands there.
    """
    old = project.from_root(run["adapter_path"])
    if run["imported_from"] is not None:
        return old, old, ("its folder is another program's and stays as it is",)
    if layout.folded(old.name) != layout.folded(run["name"]):
        return old, old, (f"its folder {run['adapter_path']} has a name of its own and stays",)
    new = old.with_name(name)
    if not os.path.lexists(new) or files.is_same(old, new):
        return old, new, () if old.is_dir() else ("its folder is not there",)
    described = adapter_config.describes_itself(new)
    if not os.path.lexists(old) and described and described["fingerprint"] == run["fingerprint"]:
        return old, new, ()  # a kill came after the folder was moved
    raise Refused(f"{project.relative(new)!r} is there already", hint="choose another name, or move it away")


@contextmanager
def _moving(old: Path, new: Path) -> Iterator[registry.Move]:
    """What moves the folder, and moves it back where the block does not end well."""
    moved = False

    def move() -> None:
        nonlocal moved
        if old == new or not old.is_dir():
            return
        try:
            old.rename(new)
        except OSError as error:
            raise Failed(f"the folder {str(old)!r} cannot be renamed: {error.strerror}") from error
        moved = True
        files.sync(new.parent)

    try:
        yield move
    except BaseException:
        if moved:
            new.rename(old)
        raise


def _describe(folder: Path, new: NewName, *, is_own: bool) -> None:
    """Write the new name into what a run's folder says of its run."""
    described = adapter_config.describes_itself(folder)
    if described is None:
        return
    config = registry.renamed_config(described["config"], new, is_own=is_own)
    adapter_config.describe(folder, {**described, "name": new.name if is_own else described["name"], "config": config})
