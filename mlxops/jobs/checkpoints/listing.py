"""The checkpoints there are: those of the registry, and those of every adapter folder that is found.

Quick: rows, names, sizes and, where no row tells, headers. Nothing is read through and nothing written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlxops import files, registry
from mlxops.adapters import adapter_config, folders
from mlxops.adapters.folders import Contents, Found
from mlxops.config import CheckpointsConfig
from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.layout import adapter_name, state_name
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import CheckpointRow, JsonObject, OfferedCheckpoint, RunSummaryView, opening
from mlxops.training import lock

State = Literal["whole", "weights only", "damaged", "missing", "pruned"]


@dataclass(frozen=True, kw_only=True)
class ListedCheckpoint:
    """One checkpoint. `bytes` is what it takes on disk; `is_next` marks the one that a resume would take.

    `status` is its row's, None without one; `hashes` are the SHA-256 that the row has of its files, by their names.
    """

    iteration: int | None
    file: str
    state: State
    bytes: int
    created_at: str | None
    train_loss: float | None = None
    validation_loss: float | None = None
    is_best: bool = False
    is_offered: bool = False
    is_next: bool = False
    status: str | None = None
    verified_at: str | None = None
    hashes: tuple[tuple[str, str], ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """The checkpoints of one folder. `next` says what resuming there would do; seconds are None where unmeasured."""

    run: str | None
    folder: str
    kind: Literal["run", "imported", "unknown run", "adapter"]
    status: str | None
    iteration: int
    target: int | None
    items: tuple[ListedCheckpoint, ...]
    next: str
    fingerprint: str | None = None
    seconds: float | None = None
    seconds_kept: float | None = None
    seconds_left: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All that was found, newest run first, and what could not be looked into."""

    groups: tuple[CheckpointFolder, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What all of it takes on disk."""
        return sum(item.bytes for group in self.groups for item in group.items)

    def to_json(self) -> JsonObject:
        """The same as JSON has it, with the bytes of all."""
        return {**asdict(self), "bytes": self.bytes}


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run of the registry with its checkpoints' rows and its rate, in iterations a second."""

    row: RunSummaryView
    rows: Sequence[OfferedCheckpoint] = ()
    rate: float | None = None


def check(config: CheckpointsConfig) -> None:
    """Raise `BadRequest` for options that contradict one another."""
    asked = [flag for flag in ("use", "verify", "prune", "debug") if getattr(config, flag)]
    if len(asked) > 1:
        raise BadRequest(f"--{asked[0]} and --{asked[1]} are two things: one at a time")
    kept = [f"--{name.replace('_', '-')}" for name in ("keep_last", "keep_best", "keep_every") if getattr(config, name)]
    if kept and not config.prune:
        raise BadRequest(f"{kept[0]} says what --prune keeps", hint=f"`inv checkpoints --prune {kept[0]}`")


def listing(invocation: Invocation, config: CheckpointsConfig, opened: opening.Opening = opening.reading) -> Listing:
    """Every checkpoint of the project, of one run, or at and below a folder.

    `opened` is how the registry is opened: usually it is brought up to date, and runs that died are closed.
    """
    project = invocation.project
    runs = known_runs(invocation, config.run, with_imported=True, opened=opened)
    below = folder_asked(project, config.path)
    listed: dict[object, str] = {}
    groups, unreadable = [], []
    for run in runs:
        place = project.from_root(run.row["adapter_path"])
        owner = listed.setdefault(files.place_of(place), run.row["name"])
        if below is None or files.is_below(place, below):
            groups.append(_of_run(project, run, owner))
    for contents in folders.discover(below or project.root) if config.run is None else ():
        if contents.problem is not None:
            unreadable.append(f"{project.relative(contents.folder)} {contents.problem}")
        elif files.place_of(contents.folder) not in listed:
            groups.append(_of_folder(project, contents))
    return Listing(groups=tuple(groups), unreadable=tuple(unreadable))


def imported(project: Project, name: str, source: str) -> Refused:
    """The error of a command that would change or resume the files of an imported run."""
    return Refused(
        f"{name!r} was imported from {source!r}, where nothing is changed",
        hint=_adopting(project, source),
    )


def _adopting(project: Project, source: str) -> str:
    if not project.from_root(source).is_dir():
        return "a log alone has no checkpoints to resume from"
    return f"inv lora --adopt {shlex.quote(source)} continues it in a run of its own"


def known_runs(
    invocation: Invocation,
    name: str | None = None,
    *,
    with_imported: bool = False,
    opened: opening.Opening = opening.reading,
) -> list[RecordedRun]:
    """The runs of the registry, newest first, or the one of that name; none without a registry.

    Imported ones are left out unless asked for; to name one raises `Refused` then.
    """
    if not invocation.project.registry_path.exists() and name is None:
        return []
    with opened(invocation.project.registry_path) as db:
        rows, rates = registry.all_checkpoints(db), registry.iteration_rates(db)
        only = None if name is None else registry.find_run(db, name)["id"]
        found = [row for row in registry.list_runs(db) if only in (None, row["id"])]
    if not with_imported:
        if only is not None and found[0]["imported_from"] is not None:
            raise imported(invocation.project, found[0]["name"], found[0]["imported_from"])
        found = [row for row in found if row["imported_from"] is None]
    return [RecordedRun(row=row, rows=rows.get(row["id"], ()), rate=rates.get(row["id"])) for row in found]


def folder_asked(project: Project, path: str | None) -> Path | None:
    """The folder that a person names, as it really is. Raises `NotFound` or `BadRequest` where it is none."""
    if path is None:
        return None
    try:
        folder = project.resolve(path)
        is_there, is_folder = folder.exists(), folder.is_dir()
    except OSError as error:
        raise BadRequest(f"{path!r} cannot be looked into: {error.strerror}", hint="name a folder of yours") from error
    if not is_there:
        raise NotFound(f"there is no folder {path!r}", hint="`inv checkpoints` shows those there are")
    if not is_folder:
        raise BadRequest(f"{path!r} is a file, and a folder is wanted", hint=f"its folder is {str(folder.parent)!r}")
    return folder.resolve()


# a run of the registry -----------------------------------------------------------------------------------------------


def _of_run(project: Project, run: RecordedRun, owner: str) -> CheckpointFolder:
    """The checkpoints of a run; `owner` is the newest run with this folder, whose files are those there."""
    row = run.row
    folder = project.from_root(row["adapter_path"])
    is_own = owner == row["name"]
    contents = folders.look(folder) if is_own else Contents(folder=folder, problem=f"is that of {owner} by now")
    if row["imported_from"] and folder.is_file():
        contents = Contents(folder=folder)  # a log
    if row["imported_from"]:
        # what was left out of the import is of other trainings
        names = {each["adapter_file"] for each in run.rows}
        contents = replace(contents, files=tuple(each for each in contents.files if each.name in names))
    items = sorted(items_of(run.rows, contents), key=lambda item: item.iteration or 0)
    chosen = next_item(items)
    is_held = lock.is_held(folder / lock.NAME)
    going_on = _adopting(project, row["imported_from"]) if row["imported_from"] else None
    kept, left = _times(run, chosen, is_held=is_held)
    return CheckpointFolder(
        run=row["name"],
        folder=row["adapter_path"],
        kind="run" if row["imported_from"] is None else "imported",
        status=row["status"],
        iteration=row["iteration"],
        target=row["target_iterations"],
        items=tuple(replace(item, is_next=item is chosen) for item in items),
        next=going_on or _going_on(row, items, chosen, contents, is_held=is_held),
        fingerprint=row["fingerprint"],
        seconds=row["seconds"],
        seconds_kept=kept,
        seconds_left=left,
        problem=contents.problem,
    )


def items_of(rows: Iterable[OfferedCheckpoint], contents: Contents) -> list[ListedCheckpoint]:
    """The checkpoints of a run: its rows held against the files, and the files that have no row."""
    rows = list(rows)
    files = {each.name: each for each in contents.files}
    with_row = {row["iteration"] for row in rows}
    items = [_from_row(row, files, contents.problem) for row in rows]
    without = {each.iteration for each in contents.of("weights", "state") if each.iteration not in with_row}
    return items + [_without_row(contents, iteration, files) for iteration in sorted(filter(None, without))]


def next_item(items: Sequence[ListedCheckpoint]) -> ListedCheckpoint | None:
    """The one that a resume takes: the newest whole."""
    return next((item for item in reversed(items) if item.state == "whole"), None)


def _from_row(row: OfferedCheckpoint, files: Mapping[str, Found], unreadable: str | None) -> ListedCheckpoint:
    adapter = files.get(row["adapter_file"])
    has_state = bool(row["state_file"]) and not row["state_pruned_at"]
    parts = [adapter, files.get(row["state_file"] or "")] if has_state else [adapter]
    state, problem = _state_of(row, parts, has_state=has_state)
    if unreadable and row["status"] == "whole":
        state, problem = "damaged" if "cannot" in unreadable or "may not" in unreadable else "missing", None
    return ListedCheckpoint(
        iteration=row["iteration"],
        file=row["adapter_file"],
        state=state,
        bytes=sum(part.bytes for part in parts if part),
        created_at=row["created_at"],
        train_loss=row["train_loss"],
        validation_loss=row["validation_loss"],
        is_best=bool(row["is_best"]),
        is_offered=bool(row["is_offered"]),
        status=row["status"],
        verified_at=row["verified_at"],
        hashes=tuple(recorded_hashes(row, has_state=has_state).items()),
        problem=problem,
    )


def recorded_hashes(row: CheckpointRow, *, has_state: bool) -> dict[str, str]:
    """The SHA-256 on record of a checkpoint's files, by their names."""
    adapter = {row["adapter_file"]: row["adapter_sha256"]}
    state = {row["state_file"]: row["state_sha256"]} if has_state else {}
    return {name: sha256 for name, sha256 in (adapter | state).items() if name and sha256}


def _state_of(row: OfferedCheckpoint, parts: Sequence[Found | None], *, has_state: bool) -> tuple[State, str | None]:
    if row["status"] == "pruned":
        return "pruned", None
    if row["status"] == "corrupt":
        return "damaged", None if parts[0] is None else f"{row['adapter_file']} was found damaged"
    if row["status"] == "missing" or parts[0] is None:
        return "missing", f"{row['adapter_file']} is gone" if parts[0] is None else "its state was found missing"
    if parts[-1] is None:
        return "damaged", f"{row['state_file']} is gone"
    if wrong := next((part for part in parts if part and part.problem), None):
        return "damaged", f"{wrong.name} {wrong.problem}"
    if not has_state:
        return "weights only", None
    size = sum(part.bytes for part in parts if part)
    if size != row["bytes"]:
        return "damaged", f"its files have {size:,} bytes instead of {row['bytes']:,}"
    return "whole", None


def _without_row(contents: Contents, iteration: int, files: Mapping[str, Found]) -> ListedCheckpoint:
    """A checkpoint that stands in the folder alone: whole as far as its headers tell."""
    adapter = files.get(adapter_name(iteration))
    state = files.get(state_name(iteration))
    adapter = adapter or next((each for each in contents.of("weights") if each.iteration == iteration), None)
    parts = [part for part in (adapter, state) if part]
    problem = next((words for part in parts if (words := _broken(contents.folder, part))), None)
    if problem is None and adapter is None:
        problem = f"{adapter_name(iteration)} is gone"
    return ListedCheckpoint(
        iteration=iteration,
        file=parts[0].name,
        state="damaged" if problem else "whole" if state else "weights only",
        bytes=sum(part.bytes for part in parts),
        created_at=_time(parts[0].modified),
        problem=problem,
    )


def _broken(folder: Path, file: Found) -> str | None:
    problem = file.problem or folders.read_header(folder / file.name).problem
    return f"{file.name} {problem}" if problem else None


def _time(modified: float) -> str:
    return datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _going_on(
    row: RunSummaryView,
    items: Sequence[ListedCheckpoint],
    chosen: ListedCheckpoint | None,
    contents: Contents,
    *,
    is_held: bool,
) -> str:
    if is_held:
        return "a process is at work on it now"
    if contents.problem is not None:
        gone = contents.problem == "is gone"
        return f"its folder {contents.problem}" + (": it would start from iteration 0" if gone else "")
    if chosen is None:
        return "there is nothing to resume from: it would start from iteration 0"
    if row["status"] == "completed" and (chosen.iteration or 0) >= row["target_iterations"]:
        return f"finished; raise `--iters` to train beyond {chosen.iteration:,}"
    return f"a resume resumes from {chosen.iteration:,}, {_why(items, chosen)}"


def _why(items: Sequence[ListedCheckpoint], chosen: ListedCheckpoint) -> str:
    newer = [item for item in items if (item.iteration or 0) > (chosen.iteration or 0) and item.state != "pruned"]
    if not newer:
        return "the newest" + ("" if chosen.status else ", which has no row yet")
    shown = ", ".join(f"{item.iteration:,} ({item.state})" for item in newer[-3:])
    return f"the newest whole one: not from {shown}"


def _times(run: RecordedRun, chosen: ListedCheckpoint | None, *, is_held: bool) -> tuple[float | None, float | None]:
    """The seconds of work that resuming keeps, and those that are left, at the newest rate of this run."""
    if run.rate is None or chosen is None:
        return None, None
    reached = run.row["iteration"] if is_held else chosen.iteration or 0
    kept = (chosen.iteration or 0) / run.rate
    seconds = run.row["seconds"]
    left = max(0, run.row["target_iterations"] - reached) / run.rate
    return kept if seconds is None else min(kept, seconds), left


# a folder without a row ----------------------------------------------------------------------------------------------


def _of_folder(project: Project, contents: Contents) -> CheckpointFolder:
    run = adapter_config.describes_itself(contents.folder)
    items = items_of((), contents)
    offered = contents.of("offered")
    place = project.relative(contents.folder)
    if run is None:
        items += [_final(contents.folder, each) for each in offered]
        said, _ = folders.read_settings(contents.folder)
        target = (said or {}).get("iters")
        return CheckpointFolder(
            run=None,
            folder=place,
            kind="adapter",
            status=None,
            iteration=max((item.iteration or 0 for item in items), default=0),
            target=target if isinstance(target, int) else None,
            items=tuple(items),
            next="no run of this toolkit: inv debug-checkpoints explains what can be done with it",
        )
    chosen = next_item(items)
    where = "starts from iteration 0 there" if chosen is None else f"resumes from {chosen.iteration:,} there"
    return CheckpointFolder(
        run=run["name"],
        folder=place,
        kind="unknown run",
        status=None,
        iteration=max((item.iteration or 0 for item in items), default=0),
        target=run["target"],
        items=tuple(replace(item, is_next=item is chosen) for item in items),
        next=f"no row of the registry points here; inv lora with this --adapter-path {where}",
        fingerprint=run["fingerprint"],
    )


def _final(folder: Path, file: Found) -> ListedCheckpoint:
    problem = _broken(folder, file)
    return ListedCheckpoint(
        iteration=None,
        file=file.name,
        state="damaged" if problem else "weights only",
        bytes=file.bytes,
        created_at=_time(file.modified),
        problem=problem,
        is_offered=True,
    )
