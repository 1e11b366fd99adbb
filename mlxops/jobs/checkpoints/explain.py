"""What a folder holds and what `inv lora` would do with it, step by step, each step with its evidence.

Everything is read through and nothing is written. The decision is the one of `inv lora`: the same function of the same
facts, gathered by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.adapters import adapter_config, evidence, findings, folders, foreign
from mlxops.adapters.evidence import Evidence, Recorded, State, Weights
from mlxops.adapters.findings import Finding, Newest
from mlxops.adapters.folders import Contents, Found, Header
from mlxops.errors import MlxopsError
from mlxops.jobs import commands
from mlxops.jobs.checkpoints.listing import RecordedRun, folder_asked, known_runs
from mlxops.jobs.train import candidates, resumable
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import JsonObject, OfferedCheckpoint
from mlxops.training import lock
from mlxops.training.decide import Decision, Request, decide
from mlxops.training.fingerprint import fingerprint
from mlxops.training.origin import origin_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that was looked at: the (dtype, shape) of its arrays, and its hash where it was read through."""

    name: str
    kind: str
    recognised: str
    iteration: int | None
    bytes: int
    modified_at: str
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, str]
    sha256: str | None
    not_finite: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A folder explained. `set_aside` are the checkpoints that a resume would set aside, with the reasons."""

    folder: str
    what: str
    run: str | None
    target: int | None
    files: tuple[File, ...]
    says: JsonObject
    recorded: tuple[OfferedCheckpoint, ...]
    findings: tuple[Finding, ...]
    newest: Newest | None
    set_aside: tuple[str, ...]
    decision: Decision
    command: str | None
    notes: tuple[str, ...]
    problem: str | None = None


def explain(
    invocation: Invocation, *, path: str | None, run: str | None, target: int | None, progress: Progress
) -> list[Explanation]:
    """Explain the adapter folders at or below a path, of one run, or of the whole project."""
    project = invocation.project
    below, runs = folder_asked(project, path), _in_full(invocation, known_runs(invocation, run))
    of_runs = [project.from_root(each.run.adapter_path).resolve() for each in runs]
    # of several runs with one folder the newest has it
    known = dict(reversed([*zip(map(files.place_of, of_runs), runs, strict=True)]))
    if run is not None:
        found = of_runs
    else:
        there = [each.folder.resolve() for each in folders.discover(below or project.root)]
        found = [*(of_runs if below is None else ()), *there] or ([below] if below else [])
    looked = [folders.look(place) for place in {files.place_of(each): each for each in found}.values()]
    total = sum(each.bytes for contents in looked for each in contents.files)
    read = _Reader(total, progress)
    return [
        _explain(invocation, project, contents, known.get(files.place_of(contents.folder)), target, read)
        for contents in looked
    ]


@dataclass(frozen=True, kw_only=True)
class _RecordedInFull:
    """A run of the registry with its checkpoints' rows."""

    run: ResumableRun
    rows: Sequence[OfferedCheckpoint]


def _in_full(invocation: Invocation, runs: Sequence[RecordedRun]) -> list[_RecordedInFull]:
    """The runs with all that a decision needs of them."""
    if not runs:
        return []
    with registry.open_read_only(invocation.project.registry_path) as db:
        return [
            _RecordedInFull(run=resumable.of_registry(registry.run_named(db, each.row["name"])), rows=each.rows)
            for each in runs
        ]


class _Reader:
    """Reads files through and counts their bytes."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._done, self._progress = max(total, 1), 0, progress

    def read(self, folder: Path, found: Found) -> File:
        """A file with its header, its hash, and what in it is not finite."""
        path = folder / found.name
        header, sha256, problem = Header(), None, found.problem
        not_finite: tuple[str, ...] = ()
        if problem is None and found.kind in ("weights", "offered", "state"):
            header = folders.read_header(path)
            problem = header.problem
            checked = () if problem else folders.not_finite(path)
            not_finite, problem = (checked, problem) if isinstance(checked, tuple) else ((), checked)
            try:
                sha256 = files.sha256(path)
            except OSError as error:
                problem = problem or f"cannot be read: {error.strerror}"
        self._done += found.bytes
        self._progress("reading", self._done, max(self._total, self._done))
        return File(
            name=found.name,
            kind=found.kind,
            recognised=found.recognised,
            iteration=found.iteration,
            bytes=found.bytes,
            modified_at=datetime.fromtimestamp(found.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            arrays=header.tensors,
            metadata=header.metadata,
            sha256=sha256,
            not_finite=not_finite,
            problem=problem,
        )


def _explain(
    invocation: Invocation,
    project: Project,
    contents: Contents,
    known: _RecordedInFull | None,
    target: int | None,
    read: _Reader,
) -> Explanation:
    folder = contents.folder
    looked = tuple(read.read(folder, each) for each in contents.files if each.kind != "other")
    said, settings_problem = folders.read_settings(folder)
    row = _row(project, folder, known)
    wanted = target if target is not None else row.target_iterations if row else None
    proof = _evidence(contents, looked, said, known.rows if known else (), wanted)
    newest = findings.newest(proof)
    if contents.problem not in (None, "is gone"):
        outlook = _closed(row, f"its folder {contents.problem}")
    elif row is None:
        outlook = _of_others(invocation, project, folder, said or {}, newest, target, looked)
    else:
        outlook = _of_ours(invocation, project, folder, row, known, wanted or 0)
    return Explanation(
        folder=project.relative(folder),
        what=outlook.what,
        run=row.name if row else None,
        target=outlook.target,
        files=looked,
        says={name: value for name, value in (said or {}).items() if name != "mlxops"},
        recorded=tuple(known.rows) if known else (),
        findings=(*_settings_finding(settings_problem), *findings.findings(proof)),
        newest=newest,
        set_aside=outlook.set_aside,
        decision=outlook.decision,
        command=outlook.command,
        notes=outlook.notes,
        problem=contents.problem,
    )


@dataclass(frozen=True, kw_only=True)
class _Outlook:
    """What a folder is, and what would be done with it."""

    what: str
    target: int | None
    decision: Decision
    command: str | None = None
    set_aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _closed(row: ResumableRun | None, reason: str) -> _Outlook:
    what = f"the run {row.name}" if row else "a folder"
    return _Outlook(what=what, target=None, decision=Decision(kind="refuse", reason=reason))


def _row(project: Project, folder: Path, known: _RecordedInFull | None) -> ResumableRun | None:
    """The run of a folder as the registry has it, else as the folder itself has it, else None."""
    if known is not None:
        return known.run
    run = adapter_config.describes_itself(folder)
    return None if run is None else resumable.of_folder(project, folder, run)


def _settings_finding(problem: str | None) -> tuple[Finding, ...]:
    if problem is None:
        return ()
    return (Finding(kind="unreadable", level="error", message=f"{layout.SETTINGS} {problem}"),)


def _evidence(
    contents: Contents,
    looked: Sequence[File],
    said: JsonObject | None,
    rows: Sequence[OfferedCheckpoint],
    target: int | None,
) -> Evidence:
    modified = {each.name: each.modified for each in contents.files}
    config = contents.named(layout.SETTINGS)
    return Evidence(
        weights=tuple(
            Weights(
                name=each.name,
                iteration=each.iteration,
                modified=modified[each.name],
                tensors=each.arrays,
                says=_number(each.metadata.get("iteration")),
                fingerprint=each.metadata.get("fingerprint"),
                sha256=each.sha256,
                not_finite=each.not_finite,
                problem=each.problem,
            )
            for each in looked
            if each.kind in ("weights", "offered")
        ),
        states=tuple(
            State(
                name=each.name,
                iteration=each.iteration or 0,
                fingerprint=each.metadata.get("fingerprint"),
                adapter_sha256=each.metadata.get("adapter_sha256"),
                problem=each.problem,
            )
            for each in looked
            if each.kind == "state"
        ),
        shape=evidence.settings_shape(said, config.modified) if said is not None and config else None,
        recorded=tuple(
            Recorded(
                iteration=row["iteration"],
                status=row["status"],
                adapter_sha256=row["adapter_sha256"],
                has_state=bool(row["state_file"]) and not row["state_pruned_at"],
            )
            for row in rows
        ),
        target=target,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


# a run of ours -------------------------------------------------------------------------------------------------------


def _of_ours(
    invocation: Invocation,
    project: Project,
    folder: Path,
    row: ResumableRun,
    known: _RecordedInFull | None,
    target: int,
) -> _Outlook:
    what = f"the run {row.name}" if known else f"a run's folder that no row of the registry points to ({row.name})"
    newest, damaged = candidates.newest_of(folder, row, known.rows if known else ())
    notes: list[str] = []
    if lock.is_held(folder / lock.NAME):
        decision = Decision(kind="refuse", run=row.name, reason=lock.busy(folder / lock.NAME, what).message)
    else:
        there = candidates.as_read(candidates.candidate(project, row), row, newest)
        decision = decide(_request(project, folder, row, target), [there])
    command = None
    if decision.kind != "refuse" or decision.hint:
        command, notes = commands.going_on(
            invocation, project, row, folder=commands.path_of(project, folder), target=max(target, decision.iteration)
        )
    if decision.kind == "finished":
        notes.append("that command does nothing; raise `--iters` to train further")
    return _Outlook(
        what=what,
        target=target,
        set_aside=tuple(f"iteration {each.iteration:,}: {each.reason}" for each in damaged),
        decision=decision,
        command=command if decision.kind != "refuse" else None,
        notes=tuple(notes),
    )


def _request(project: Project, folder: Path, row: ResumableRun, target: int) -> Request:
    """The request to resume this run in its folder, as `inv lora` makes it of the same settings."""
    deciding = dict(row.config.get("deciding", {}))
    is_same = row.target_iterations == target
    if deciding.get("schedule_iterations") is not None:
        deciding["schedule_iterations"] = target
    place = project.relative(folder)
    return Request(
        fingerprint=row.fingerprint if is_same else fingerprint(deciding),
        settings=deciding,
        target=target,
        folder=row.adapter_path,
        own_folder=place,
        early_stopping=row.config.get("early_stopping"),
        origin=origin_of(row.config),
    )


# a folder of others --------------------------------------------------------------------------------------------------


def _of_others(
    invocation: Invocation,
    project: Project,
    folder: Path,
    said: JsonObject,
    newest: Newest | None,
    target: int | None,
    looked: Sequence[File],
) -> _Outlook:
    place = project.relative(folder)
    request = Request(
        fingerprint="",
        settings={},
        target=target or 0,
        folder=place,
        own_folder=place,
        occupied=adapter_config.occupied_by(folder),
    )
    decision = decide(request, [])
    command: str | None = None
    notes: list[str] = []
    if newest is not None:
        command, notes = _adopt(invocation, project, folder, said, newest, target, looked)
    has_adapter = any(each.kind in ("weights", "offered") for each in looked)
    return _Outlook(
        what="an adapter that this toolkit did not make" if has_adapter else "no adapter's folder",
        target=target,
        decision=decision,
        command=command,
        notes=tuple(notes),
    )


def _adopt(
    invocation: Invocation,
    project: Project,
    folder: Path,
    said: JsonObject,
    newest: Newest,
    target: int | None,
    looked: Sequence[File],
) -> tuple[str | None, list[str]]:
    """The command that takes the newest weights over, as `--adopt` itself reads the folder."""
    chosen = next(each for each in looked if each.name == newest.name)
    offered = next((each for each in looked if each.kind == "offered"), None)
    is_offered = offered is not None and offered.sha256 == chosen.sha256
    path = folder if is_offered else folder / chosen.name
    try:
        read = foreign.read(path, layers=_layers(chosen))
    except MlxopsError as error:
        return None, [f"it cannot be taken over: {error.message}"]
    if target is None:
        trained = said.get("iters")
        more = trained if isinstance(trained, int) and trained > 0 else 100
        target = more if more > read.iteration else read.iteration + more
    elif target <= read.iteration:
        note = f"{target:,} iterations are asked for, and it has {read.iteration:,}: nothing is left to train"
        return None, [*read.notes, note]
    command, notes = commands.adopting(invocation, project, said, path=commands.path_of(project, path), target=target)
    return command, [*read.notes, *notes]


def _layers(file: File) -> int:
    """How many layers the model has at least."""
    places = (name.partition("layers.")[2].partition(".")[0] for name in file.arrays)
    return 1 + max((int(place) for place in places if place.isdecimal()), default=0)
