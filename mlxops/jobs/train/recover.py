"""Bringing registry and disk in line: runs whose row is gone, checkpoints without a row, rows without their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.adapters.adapter_config import DescribedRun, describes_itself
from mlxops.errors import Failed
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.projects.project import Project
from mlxops.registry import waiting
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint, Damaged
from mlxops.training.origin import origin_of


@dataclass(frozen=True)
class Unknown:
    """A run's folder that no row points to. `name` is free to take; `moved` is the row of the run if it was here."""

    folder: Path
    run: DescribedRun
    name: str | None
    moved: int | None


def unknown_folders(project: Project, rows: Iterable[ResumableRun], asked_for: Path | None) -> list[Unknown]:
    """The runs' folders in `adapters/`, and the one asked for, that the registry does not know, parents first.

    A copy of a run's folder counts only where it is asked for: resuming in it is never meant otherwise.
    """
    by_name = {row.name: row for row in rows}
    known = {row.adapter_path: project.from_root(row.adapter_path) for row in by_name.values()}
    folders = sorted(project.adapters_folder.iterdir()) if project.adapters_folder.is_dir() else []
    if asked_for is not None:
        folders.append(asked_for)
    found: dict[str, Unknown] = {}
    for folder in folders:
        place = project.relative(folder)
        run = None if folder.is_symlink() or place in known or place in found else describes_itself(folder)
        # under another spelling of its name it may be a folder that is known
        others = (*known.values(), *(each.folder for each in found.values()))
        if run is None or any(files.is_same(folder, each) for each in others):
            continue
        row = by_name.get(run["name"])
        if row is None:
            found[place] = Unknown(folder, run, run["name"], None)
        elif not project.from_root(row.adapter_path).exists():
            found[place] = Unknown(folder, run, run["name"], row.id)
        elif asked_for is not None and files.is_same(folder, asked_for):
            found[place] = Unknown(folder, run, _free_name(folder.name, by_name), None)
    parents = {each.run["name"]: _parent(each) for each in found.values()}
    return sorted(found.values(), key=lambda each: _generation(each.run["name"], parents))


def _free_name(name: str, taken: Iterable[str]) -> str | None:
    taken = list(taken)
    return name if layout.known_spelling(name, taken) not in taken else None


def _parent(unknown: Unknown) -> str | None:
    origin = origin_of(unknown.run["config"])
    return origin.run if origin else None


def _generation(name: str, parents: Mapping[str, str | None]) -> int:
    """How many of a run's ancestors are among these runs."""
    seen = {name}
    while (parent := parents.get(name)) in parents and parent not in seen:
        seen.add(name := str(parent))
    return len(seen)


def restore(project: Project, folder: Path, db: registry.Registry) -> int:
    """Give the run at work in a folder its row in a registry that does not hold it; returns its number there.

    Raises `Failed` where the folder does not say whose it is.
    """
    run = describes_itself(folder)
    if run is None:
        raise Failed(f"{str(folder)!r} no longer says which run it belongs to")
    return take(project, db, Unknown(folder, run, run["name"], None))


def record_waiting(db: registry.Registry, run: ResumableRun, folder: Path) -> bool:
    """Bring in what waits in a run's folder since the registry was away; whether there was anything.

    Its checkpoints get their rows first, from their files.
    """
    if run.id is None or not waiting.kept(folder):
        return False
    there = {each["iteration"] for each in registry.checkpoints_of(db, run.id)}
    for iteration in sorted(set(checkpoints.iterations(folder)) - there):
        found = checkpoints.read(folder, iteration, fingerprint=run.fingerprint)
        if isinstance(found, Checkpoint):
            _add_row(db, run.id, found)
    waiting.bring_in(db, run.id, run.fingerprint, folder)
    return True


def take(project: Project, db: registry.Registry, unknown: Unknown) -> int:
    """Give a run's folder its row, a new one, or that of a run whose folder was moved; returns its number."""
    folder, run = unknown.folder, unknown.run
    place = project.relative(folder)
    if unknown.moved is not None:
        registry.update_run(db, unknown.moved, adapter_path=place)
        registry.add_event(db, unknown.moved, None, kind="moved", message=f"its folder is now {place}")
        return unknown.moved
    origin = origin_of(run["config"])
    parent = registry.id_of(db, origin.run) if origin and origin.run else None
    # an imported run may have taken the name meanwhile
    is_free = unknown.name is not None and registry.is_free(db, unknown.name)
    made = registry.create_run(
        db,
        name=unknown.name if is_free else None,
        kind=run["config"]["fine_tune_type"],
        fingerprint=run["fingerprint"],
        model=run["model"],
        model_identity=run["model_identity"],
        data=run["data"],
        data_identity=run["data_identity"],
        config=run["config"],
        target_iterations=run["target"],
        adapter_path=place,
        parent_id=parent,
        branch_iteration=origin.iteration if origin and parent else None,
        note=run["config"].get("note"),
        tags=run["config"].get("tag") or (),
    )
    newest = None
    for iteration in reversed(checkpoints.iterations(folder)):
        found = checkpoints.read(folder, iteration, fingerprint=run["fingerprint"])
        if isinstance(found, Checkpoint):
            newest = found
            _add_row(db, made.id, found)
    # what waits in the folder may tell how it ended
    if newest is not None and newest.counters.closed_at is not None and not waiting.kept(folder):
        complete(db, made.id, newest)
    message = f"taken from its folder {place}: no row pointed to it"
    registry.add_event(db, made.id, None, kind="recovered", message=message)
    return made.id


def bring_in_line(
    db: registry.Registry, run_id: int, folder: Path, start: Checkpoint | None, damaged: Iterable[Damaged]
) -> None:
    """Set damaged checkpoints aside, and give a whole one the row that a kill kept from being written."""
    there = {each["iteration"]: each for each in registry.checkpoints_of(db, run_id)}
    damaged = list(damaged)
    for each in damaged:
        names = checkpoints.set_aside(folder, each.iteration)
        if each.iteration in there:
            registry.mark_checkpoint(db, run_id, each.iteration, "corrupt" if names else "missing")
        registry.add_event(
            db,
            run_id,
            None,
            kind="damaged",
            level="warning",
            iteration=each.iteration,
            message=f"the checkpoint at iteration {each.iteration} cannot be used: {each.reason}",
            detail={"set_aside": names},
        )
    for iteration, known in there.items():
        if known["status"] == "whole" and not (folder / known["adapter_file"]).exists():
            registry.mark_checkpoint(db, run_id, iteration, "missing")
    recorded = there.get(start.iteration) if start is not None else None
    is_recorded = recorded is not None and start is not None and recorded["state_sha256"] == start.state_sha256
    if start is not None and (damaged or not is_recorded):
        try:
            checkpoints.offer(start)
        except OSError as error:
            raise cannot_write(folder, error) from error
        _add_row(db, run_id, start)


def complete(db: registry.Registry, run_id: int, closed: Checkpoint) -> None:
    """Give a run the end that its newest checkpoint is proof of: status, target, and the metrics of closing.

    It was killed after that checkpoint, or in an extension before the first one, or comes from its folder alone.
    """
    counters = closed.counters
    attempts = registry.attempts_of(db, run_id)
    if attempts:
        attempt = attempts[-1]["id"]
        registry.update_run(db, run_id, target_iterations=counters.closed_at)
    else:
        attempt = registry.start_attempt(
            db,
            run_id,
            start_kind="exact",
            start_note="taken from its folder: the attempts before are not known",
            from_iteration=closed.iteration,
            trained_tokens=counters.trained_tokens,
            target_iterations=closed.iteration,
            device=closed.environment["device"].partition(":")[0],
            environment=closed.environment,
            command="",
        )
    metrics = dict(counters.closing)
    loss, error = metrics.pop("validation_loss", None), metrics.pop("validation_standard_error", None)
    if metrics:
        registry.record_report(
            db,
            run_id,
            None,
            iteration=closed.iteration,
            epoch=None,
            trained_tokens=counters.trained_tokens,
            metrics=metrics,
        )
    if loss is not None and error is not None:
        registry.record_validation(db, run_id, None, iteration=closed.iteration, loss=loss, standard_error=error)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=closed.iteration)


def cannot_write(folder: Path, error: OSError) -> Failed:
    """The error of a run's folder that cannot be written."""
    return Failed(
        f"the run's folder {str(folder)!r} cannot be written: {error.strerror}",
        hint="`--adapter-path` names another one",
    )


def _add_row(db: registry.Registry, run_id: int, found: Checkpoint) -> None:
    registry.add_checkpoint(
        db,
        run_id,
        None,
        iteration=found.iteration,
        adapter_file=found.adapter_path.name,
        state_file=found.state_path.name,
        bytes=found.bytes,
        adapter_sha256=found.adapter_sha256,
        state_sha256=found.state_sha256,
        train_loss=found.train_loss,
        validation_loss=found.validation_loss,
        trained_tokens=found.counters.trained_tokens,
        at=found.state_path.stat().st_mtime,
    )
