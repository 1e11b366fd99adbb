"""The runs that a command to train may fall on: gathered, read where the decision falls, decided on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlxops import data, layout, registry
from mlxops.adapters import adapter_config
from mlxops.errors import BadRequest, MlxopsError
from mlxops.jobs.train import branch, recover, resumable
from mlxops.jobs.train.prepare import Prepared, begin_at
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.projects.project import Project
from mlxops.registry import CheckpointRow
from mlxops.training import checkpoints, lock
from mlxops.training.checkpoints import Checkpoint, Damaged
from mlxops.training.decide import Candidate, Decision, Request, Rows, decide
from mlxops.training.origin import origin_of


@dataclass
class KnownRuns:
    """The runs there are, by name: their rows, what `decide` is told of them, and what was read of their folders."""

    rows: dict[str, ResumableRun] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    read: dict[str, tuple[Checkpoint | None, list[Damaged]]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)


def settle(project: Project, db: registry.Registry | None, prepared: Prepared) -> tuple[Decision, KnownRuns, Prepared]:
    """Decide on what the registry says, and again on what the folder says of the run that the decision falls on.

    Only that run's checkpoints are read through: reading them all would take as long as the disk does. The training
    comes back with where it begins, which the runs there are have a say in.
    """
    runs = KnownRuns()
    for row in own_runs(db) if db else ():
        runs.rows[row.name] = row
        runs.candidates[row.name] = candidate(project, row)
    asked = folder_asked(project, prepared, runs.rows.values())
    for unknown in recover.unknown_folders(project, runs.rows.values(), asked):
        name = unknown.name or unknown.folder.name
        runs.rows[name] = replace(resumable.of_folder(project, unknown.folder, unknown.run), name=name)
        runs.candidates[name] = candidate(project, runs.rows[name])
    prepared = _begun(project, db, runs, _as_known(runs, prepared))
    request = _request(project, runs, prepared)
    while True:
        decision = decide(request, list(runs.candidates.values()))
        chosen = decision.run
        if chosen is None or chosen in runs.read or chosen in runs.held:
            _check_target(decision, prepared)
            return decision, runs, prepared
        _read(project, db, runs, chosen)


def probable_run(project: Project, prepared: Prepared) -> ResumableRun | None:
    """The row of the run that the command will probably resume, from the registry alone; None for a new run.

    It says what to expect and decides nothing: a registry that cannot be read is told of when the run is decided on.
    """
    try:
        with registry.open_read_only(project.registry_path) as db:
            runs = own_runs(db)
    except MlxopsError:
        return None
    config, asked = prepared.config, folder_asked(project, prepared, runs)
    if config.name is not None or asked is not None:
        named = (config.name, None if asked is None else project.relative(asked))
        runs = [row for row in runs if row.name == named[0] or row.adapter_path == named[1]]
    else:
        runs = [row for row in runs if row.fingerprint == prepared.fingerprint]
    return runs[0] if runs and not config.new else None


def is_done(run: ResumableRun, prepared: Prepared) -> bool:
    """Whether a run has come as far as the command wants it to."""
    return run.status == "completed" and run.iteration >= prepared.target


def own_runs(db: registry.Registry) -> list[ResumableRun]:
    """The runs that a training may resume: not those that were imported, whose folders are another tool's."""
    return [resumable.of_registry(row) for row in registry.candidate_runs(db) if row["imported_from"] is None]


def _as_known(runs: KnownRuns, prepared: Prepared) -> Prepared:
    """The training with the name that the run has, where the one given is another spelling of it.

    Raises `BadRequest` for the name of no run that no new run can have.
    """
    if prepared.config.name is None:
        return prepared
    name = layout.known_spelling(prepared.config.name, runs.rows)
    if name not in runs.rows:
        registry.check_new_name(None, name)
    return replace(prepared, config=replace(prepared.config, name=name))


def _begun(project: Project, db: registry.Registry | None, runs: KnownRuns, prepared: Prepared) -> Prepared:
    """The training with its origin: that of the branch asked for, or of the run that the command names."""
    if prepared.config.branch:
        return begin_at(prepared, branch.settle(project, db, runs.rows, prepared))
    there = branch.named(project, runs.rows, prepared)
    origin = origin_of(there.config) if there and prepared.origin is None else None
    return begin_at(prepared, origin) if origin else prepared


def _check_target(decision: Decision, prepared: Prepared) -> None:
    origin, target = prepared.origin, prepared.target
    if decision.kind in ("new", "resume") and origin is not None and origin.iteration >= target:
        raise BadRequest(
            f"it begins at iteration {origin.iteration:,}, which leaves nothing to train up to {target:,}",
            hint=f"iterations count on: `--iters {origin.iteration + target}` trains {target:,} more",
        )


def candidate(project: Project, row: ResumableRun) -> Candidate:
    """What `decide` is told of a run before its folder is read."""
    return Candidate(
        name=row.name,
        folder=row.adapter_path,
        fingerprint=row.fingerprint,
        settings=row.config.get("deciding", {}),
        rows=Rows(
            data=row.data,
            content=row.config.get("content_identity"),
            masking_rules=row.config.get("masking_rules", 1),
        ),
        iteration=row.iteration,
        target=row.target_iterations,
        closed=row.status == "completed",
        # a command that was killed before it made the folder
        has_folder=project.from_root(row.adapter_path).is_dir() or row.status == "created",
    )


def _read(project: Project, db: registry.Registry | None, runs: KnownRuns, name: str) -> None:
    """Read a run's newest checkpoints through, unless another process is at work there."""
    row = runs.rows[name]
    folder = project.from_root(row.adapter_path)
    if lock.is_held(folder / lock.NAME):
        runs.held.add(name)
        return
    newest, damaged = newest_of(folder, row, registry.checkpoints_of(db, row.id) if db and row.id else ())
    runs.read[name] = newest, damaged
    runs.candidates[name] = as_read(runs.candidates[name], row, newest)


def newest_of(
    folder: Path, row: ResumableRun, rows: Iterable[CheckpointRow]
) -> tuple[Checkpoint | None, list[Damaged]]:
    """A run's newest whole checkpoint, read through, and the newer damaged ones; `rows` are its checkpoints'."""
    recorded = [
        each["iteration"]
        for each in rows
        if each["status"] == "whole" and each["state_file"] and not each["state_pruned_at"]
    ]
    return checkpoints.newest(folder, fingerprint=row.fingerprint, recorded=recorded)


def as_read(known: Candidate, row: ResumableRun, newest: Checkpoint | None) -> Candidate:
    """What `decide` is told of a run whose newest checkpoint was read."""
    return replace(
        known,
        iteration=newest.iteration if newest else 0,
        closed=newest is not None and newest.counters.closed_at is not None,
        stalled=newest.counters.improvement.since if newest and row.status == "completed" else 0,
    )


def folder_asked(project: Project, prepared: Prepared, rows: Iterable[ResumableRun]) -> Path | None:
    """The folder that the command names, in the spelling of the run that is there."""
    asked = prepared.config.adapter_path
    return None if asked is None else project.as_known(project.resolve(asked), (row.adapter_path for row in rows))


def _request(project: Project, runs: KnownRuns, prepared: Prepared) -> Request:
    config, asked = prepared.config, folder_asked(project, prepared, runs.rows.values())
    own = asked
    if own is None and config.name is not None:
        stored = (row.adapter_path for row in runs.rows.values())
        own = project.as_known(project.adapters_folder / config.name, stored)
    is_adopted = own is not None and prepared.to_adopt is not None and prepared.to_adopt.parent == own
    return Request(
        fingerprint=prepared.fingerprint,
        settings=prepared.settings,
        rows=Rows(
            data=project.relative(prepared.data_path),
            content=prepared.content_identity,
            masking_rules=data.MASKING_RULES,
        ),
        target=prepared.target,
        name=config.name,
        folder=None if asked is None else project.relative(asked),
        own_folder=None if own is None else project.relative(own),
        new=config.new,
        early_stopping=config.early_stopping,
        occupied=None if own is None or is_adopted else adapter_config.occupied_by(own),
        origin=prepared.origin,
    )
