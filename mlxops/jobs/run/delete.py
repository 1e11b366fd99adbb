"""Removing runs: what would be deleted, and removing exactly that.

Only what is a run's by name goes, and only out of its own folder: no link is followed, what else is there stays, and
the folder goes only when it is empty. Files go before rows: a removal that was interrupted is completed by the same
command, and never leaves a folder that the next training would take for a run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.adapters.adapter_config import describes_itself
from mlxops.config import DeleteConfig
from mlxops.errors import BadRequest, Busy, Failed, Refused
from mlxops.jobs.train import claim, detach, latest
from mlxops.layout import BEFORE
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import FoundRun, JsonObject, Registry
from mlxops.registry.opening import reading, writing
from mlxops.registry.runs import find_runs
from mlxops.training import lock
from mlxops.training.origin import origin_of

_OWN_NAMES = {layout.OFFERED, layout.SETTINGS, lock.NAME, detach.LOG}
_SET_ASIDE = r"\d{7,}_(adapters|state)\.safetensors\.corrupt(\.\d+)?"
_HALF_WRITTEN = r"\..+\.partial(\..+)?"
_OWN_FILES = re.compile(rf"\d{{7,}}_(adapters|state)\.safetensors|{_SET_ASIDE}|{_HALF_WRITTEN}")
_LEFT_OVER = re.compile(rf"\d{{7,}}_state\.safetensors|{_SET_ASIDE}|{_HALF_WRITTEN}")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A run's folder: the files that would be deleted, with sizes; what stays there; why all of it stays, if it does.

    `restored` are files of a folder of mlx_lm.lora that the run took over, which get back what they held before it.
    """

    run: str
    path: Path
    shown: str
    files: Mapping[str, int]
    restored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    stays_because: str | None = None


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What removing some runs would take: their rows by table, and the files in their folders."""

    runs: Mapping[str, int]
    rows: Mapping[str, int]
    folders: tuple[Folder, ...]
    keep_files: bool

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return list(self.runs)

    @property
    def bytes(self) -> int:
        """The size of all files that would be deleted."""
        return sum(sum(folder.files.values()) for folder in self.folders)

    def to_json(self) -> JsonObject:
        """The same as JSON has it."""
        return {
            "runs": self.names,
            "rows": dict(self.rows),
            "bytes": self.bytes,
            "folders": [
                {
                    "run": folder.run,
                    "folder": folder.shown,
                    "files": dict(folder.files),
                    "restored": list(folder.restored),
                    "others": list(folder.others),
                    "stays_because": folder.stays_because,
                }
                for folder in self.folders
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed, the folders that are gone, and where `adapters/latest` points if it moved."""

    planned: Removal
    folders_removed: list[str]
    latest: str | None

    def to_json(self) -> JsonObject:
        """The same as JSON has it."""
        return {**self.planned.to_json(), "folders_removed": self.folders_removed, "latest": self.latest}


def plan(invocation: Invocation, config: DeleteConfig) -> Removal:
    """What would be deleted. Raises `Refused` for a run that others branch from, `Busy` for one that is worked on."""
    if not config.runs:
        raise BadRequest("run.delete takes the name of a run, or several with commas between them")
    with reading(invocation.project.registry_path) as db:
        return _plan(invocation.project, db, config.runs, keep_files=config.keep_files)


def remove(invocation: Invocation, planned: Removal) -> Removed:
    """Remove what was planned, and point `adapters/latest` at the newest run there is; returns what went and stayed.

    Raises `Refused`, with nothing removed, where what would be deleted has changed since, and `Failed` where a file
    cannot be removed: then the rows are still there.
    """
    project = invocation.project
    with (
        writing(invocation.project.registry_path) as db,
        claim.deciding(project, claim.holder(invocation.command or "")),
    ):
        if _plan(project, db, planned.names, keep_files=planned.keep_files) != planned:
            raise Refused("something of the runs has changed meanwhile, so nothing was removed", hint="run it again")
        gone = [folder.shown for folder in planned.folders if _empty(project, folder)]
        registry.remove_runs(db, list(planned.runs.values()))
        pointed_at = latest.repair(project, db, [folder.path for folder in planned.folders])
    return Removed(planned=planned, folders_removed=gone, latest=pointed_at)


def _plan(project: Project, db: Registry, names: Sequence[str], *, keep_files: bool) -> Removal:
    runs = find_runs(db, names)
    ids = [run["id"] for run in runs]
    for run in runs:
        path = project.from_root(run["adapter_path"]) / lock.NAME
        if lock.is_held(path):
            message = lock.busy(path, f"the run {run['name']!r}").message
            raise Busy(message, hint="`inv monitor` shows it; stop it first")
    registry.check_removable(db, ids)
    return Removal(
        runs={run["name"]: run["id"] for run in runs},
        rows=registry.rows_of_runs(db, ids),
        folders=() if keep_files else tuple(_folder(project, db, run, runs) for run in runs),
        keep_files=keep_files,
    )


def _folder(project: Project, db: Registry, run: FoundRun, going: Sequence[FoundRun]) -> Folder:
    path = project.from_root(run["adapter_path"])
    reason = _why_it_stays(project, db, run, going, path)
    entries = [] if reason else sorted(os.scandir(path), key=lambda entry: entry.name)
    names = {entry.name for entry in entries}
    is_taken_over = _was_taken_over(project, run, path)
    kept = sorted(name.removesuffix(BEFORE) for name in names if name.endswith(BEFORE)) if is_taken_over else []
    # the settings last: until then the same command completes a removal that was cut short
    restored = sorted(kept, key=layout.SETTINGS.__eq__)
    own = _own_names(db, run, names, restored, is_taken_over=is_taken_over)
    files = {
        entry.name: entry.stat(follow_symlinks=False).st_size
        for entry in entries
        if entry.name in own and entry.is_file(follow_symlinks=False)
    }
    others = names - files.keys() - {name + BEFORE for name in restored}
    return Folder(
        run=run["name"],
        path=path,
        shown=run["adapter_path"],
        files=files,
        restored=tuple(restored),
        others=tuple(sorted(others)),
        stays_because=reason,
    )


def _was_taken_over(project: Project, run: FoundRun, path: Path) -> bool:
    """Whether the run lives in the folder of mlx_lm.lora whose adapter it resumed."""
    origin = origin_of(run["config"])
    return origin is not None and origin.kind == "warm" and files.is_same(project.from_root(origin.folder), path)


def _own_names(
    db: Registry, run: FoundRun, names: Iterable[str], restored: Collection[str], *, is_taken_over: bool
) -> set[str]:
    """Which of these names are the run's; in a folder that was another's those that it surely wrote itself."""
    recorded = {row[name] for row in registry.checkpoints_of(db, run["id"]) for name in ("adapter_file", "state_file")}
    if is_taken_over:
        sure = {lock.NAME, detach.LOG, *recorded, *restored}
        return {name for name in names if name in sure or _LEFT_OVER.fullmatch(name)}
    return {name for name in names if name in _OWN_NAMES | recorded or _OWN_FILES.fullmatch(name)}


def _why_it_stays(project: Project, db: Registry, run: FoundRun, going: Sequence[FoundRun], path: Path) -> str | None:
    """Why nothing may be removed from a run's folder, None where its files are its own."""
    if run["imported_from"] is not None:
        return "it was imported"
    if path.is_symlink():
        return "it is a link"
    if not path.is_dir():
        return "it is not there"
    leaving = {each["id"] for each in going}
    for other in registry.candidate_runs(db):
        if other["id"] not in leaving and files.is_same(project.from_root(other["adapter_path"]), path):
            return f"it is the folder of {other['name']}, too"
    if not (path / layout.SETTINGS).exists():
        return None
    owner = describes_itself(path)
    if owner is None:
        return f"its {layout.SETTINGS} is not of this toolkit"
    others = {each["name"] for each in registry.candidate_runs(db)} - {each["name"] for each in going}
    # a run that was renamed is known by what it was trained from; one of that name that is here has other files
    if owner["fingerprint"] == run["fingerprint"] and owner["name"] not in others:
        return None
    if owner["name"] in {each["name"] for each in going}:
        return None
    return f"its {layout.SETTINGS} says it is of {owner['name']}"


def _empty(project: Project, folder: Folder) -> bool:
    """Remove the run's files from its folder, and the folder if it is empty then; returns whether it is gone."""
    if folder.stays_because is not None:
        return False
    try:
        # by the folder's descriptor: were it replaced by a link meanwhile, nothing elsewhere would be touched
        descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in folder.files:
                with suppress(FileNotFoundError):
                    if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                        os.unlink(name, dir_fd=descriptor)
            for name in folder.restored:
                os.rename(name + BEFORE, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Failed(
            f"the run's folder {str(folder.path)!r} cannot be emptied: {error.strerror}",
            hint="the rows are still there; `--keep-files` removes them alone",
        ) from error
    if folder.path in (project.root, project.adapters_folder):
        return False
    with suppress(OSError):  # other things are in it
        folder.path.rmdir()
    return not folder.path.exists()
