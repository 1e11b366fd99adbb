"""Reading checkpoints through: every byte against the hashes of the registry, or of the files' own metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mlxops import files, layout, registry
from mlxops.adapters import folders
from mlxops.config import CheckpointsConfig
from mlxops.errors import Failed
from mlxops.jobs.checkpoints.listing import CheckpointFolder, ListedCheckpoint, listing
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import checkpoints

Progress = Callable[[str, int, int], None]
Result = Literal["whole", "damaged", "missing", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What reading one checkpoint through found. `result` of another program's file without hashes is its header's."""

    run: str | None
    folder: str
    iteration: int | None
    result: Result
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All that was read, the bytes of it, and what damage means for resuming, a sentence a run.

    `is_recorded` is False where the registry cannot be written.
    """

    checkpoints: tuple[Verified, ...]
    bytes: int
    consequences: tuple[str, ...]
    is_recorded: bool
    unreadable: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[Verified, ...]:
        """Those that cannot be used."""
        return tuple(each for each in self.checkpoints if each.result in ("damaged", "missing"))


def verify(invocation: Invocation, config: CheckpointsConfig, progress: Progress) -> Verification:
    """Read everything through and record what was found: when, and what is damaged or missing.

    Files that a process at work removes meanwhile are no damage: their rows say pruned by then.
    """
    project, found = invocation.project, listing(invocation, config)
    counter = _Counter(found.bytes, progress)
    is_recorded = registry.may_write(invocation.project.registry_path)
    verified: list[Verified] = []
    consequences: list[str] = []
    for group in found.groups:
        results = _verify_group(project, group, counter)
        if group.kind in ("run", "imported") and is_recorded:
            results = _record(invocation, group, results)
        verified += results
        consequences += _consequence(group, results)
    return Verification(
        checkpoints=tuple(verified),
        bytes=counter.done,
        consequences=tuple(consequences),
        is_recorded=is_recorded,
        unreadable=found.unreadable,
    )


def check(found: Verification) -> None:
    """Raise `Failed` where anything is damaged."""
    if found.damaged:
        raise Failed(
            f"{len(found.damaged):,} of {len(found.checkpoints):,} checkpoints cannot be used",
            hint="`inv debug-checkpoints FOLDER` explains each; `inv lora` sets damaged ones aside when it continues",
        )


class _Counter:
    """The bytes read so far, told as they come."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done, self._total, self._progress = 0, max(total, 1), progress

    def add(self, count: int) -> None:
        self.done += count
        self._progress("reading", self.done, max(self._total, self.done))


def _verify_group(project: Project, group: CheckpointFolder, counter: _Counter) -> list[Verified]:
    folder = project.from_root(group.folder)
    return [read_through(folder, group, item, counter.add) for item in group.items if not is_known_gone(item)]


def is_known_gone(item: ListedCheckpoint) -> bool:
    """Whether nothing is left of a checkpoint and its row says so: pruned, set aside, or found missing before."""
    return item.state == "pruned" or (item.status in ("corrupt", "missing") and item.bytes == 0)


def read_through(
    folder: Path, group: CheckpointFolder, item: ListedCheckpoint, heard: Callable[[int], object]
) -> Verified:
    """Read one checkpoint in this folder; `heard` gets the bytes as they come. Nothing is recorded."""
    told = partial(Verified, run=group.run, folder=group.folder, iteration=item.iteration)
    hashes = dict(item.hashes)
    for name in hashes or [item.file]:
        try:
            (folder / name).stat()
        except FileNotFoundError:
            return told(result="missing", reason=f"{name} is gone")
        except OSError as error:
            return told(result="damaged", reason=f"{name} cannot be read: {error.strerror}")
    if item.iteration is not None and (hashes or files.is_there(folder / layout.state_name(item.iteration))):
        problem = checkpoints.problem(folder, item.iteration, hashes, fingerprint=group.fingerprint, heard=heard)
        return told(result="damaged" if problem else "whole", reason=problem)
    problem = folders.read_header(folder / item.file).problem
    if problem:
        return told(result="damaged", reason=f"{item.file} {problem}")
    return told(result="not comparable", reason="no hash of it is known; its header is in order")


_STATUS: Mapping[str, str] = {"whole": "whole", "damaged": "corrupt", "missing": "missing"}


def _record(invocation: Invocation, group: CheckpointFolder, results: list[Verified]) -> list[Verified]:
    """Mark the rows of a run; what was pruned meanwhile is left out."""
    with registry.open_registry(invocation.project.registry_path) as db:
        run_id = registry.id_of(db, str(group.run))
        if run_id is None:  # deleted meanwhile
            return []
        now = {row["iteration"]: row["status"] for row in registry.checkpoints_of(db, run_id)}
        kept = [each for each in results if now.get(each.iteration or 0) != "pruned"]
        for each in kept:
            if each.iteration is not None and each.iteration in now and each.result in _STATUS:
                registry.mark_checkpoint(db, run_id, each.iteration, _STATUS[each.result])
    return kept


def _consequence(group: CheckpointFolder, results: list[Verified]) -> list[str]:
    """What damage to the newest checkpoints means for resuming."""
    bad = {each.iteration: each for each in results if each.result in ("damaged", "missing")}
    left = [item.iteration or 0 for item in group.items if item.state == "whole" and item.iteration not in bad]
    newer = [each for each in bad.values() if each.iteration is not None and each.iteration > max(left, default=0)]
    if not newer or group.kind in ("adapter", "imported"):
        return []
    where = f"iteration {max(left):,}" if left else "the beginning"
    why = " and ".join(f"{each.iteration:,} is {each.result}" for each in newer)
    return [f"{group.run or group.folder}: a resume would take {where}, since {why}"]
