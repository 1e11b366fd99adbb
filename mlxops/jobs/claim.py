"""Deciding which run a command works on, and taking hold of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlxops import registry
from mlxops.errors import Failed, Refused, SettingsDiffer
from mlxops.jobs.prepare import Prepared
from mlxops.projects import machine
from mlxops.projects.project import Project
from mlxops.training import checkpoints, lock
from mlxops.training.checkpoints import Checkpoint, Damaged
from mlxops.training.decide import Candidate, Decision, Request, decide


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that this process alone works on, and where it goes on."""

    decision: Decision
    run_id: int
    name: str
    folder: Path
    start: Checkpoint | None
    config: Mapping[str, Any]
    damaged: tuple[Damaged, ...] = ()


@dataclass
class _Found:
    """What was found of the runs that could be meant, by run name."""

    candidates: list[Candidate] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    newest: dict[str, tuple[Checkpoint | None, list[Damaged]]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)


def preview(project: Project, prepared: Prepared) -> Decision:
    """What `inv lora` would do now, without doing any of it."""
    if not project.registry_path.exists():
        return decide(_request(project, prepared), [])
    with registry.open_read_only(project.registry_path) as db:
        return decide(_request(project, prepared), _look(project, db, prepared).candidates)


@contextmanager
def claim(project: Project, db: registry.Registry, prepared: Prepared, command: str) -> Iterator[Claim]:
    """Decide and hold the run's lock while the block runs.

    Raises `SettingsDiffer` or `Refused` for a refusal, `Busy` where another process has the run.
    """
    holder = {
        "pid": os.getpid(),
        "host": machine.facts()["host"],
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
    }
    with ExitStack() as held:
        # two equal commands at once must not both find that there is no run yet
        with lock.hold(_state_folder(project) / "decide.lock", holder, what="the project", wait=True):
            registry.close_dead_attempts(db)
            _recover_folders(project, db, prepared)
            found = _look(project, db, prepared)
            decision = decide(_request(project, prepared), found.candidates)
            _enforce(decision)
            row = _new_row(project, db, prepared) if decision.kind == "new" else found.rows[str(decision.run)]
            folder = project.from_root(row["adapter_path"])
            if decision.kind != "finished":
                _take_hold(held, folder, holder, f"the run {row['name']!r}", is_read=row["name"] not in found.held)
        start, damaged = found.newest.get(row["name"], (None, []))
        _bring_in_line(db, row, start, damaged, folder)
        if decision.kind == "finished" and row["status"] != "completed":
            _complete(db, row["id"], row["target_iterations"], start)
        yield Claim(
            decision=decision,
            run_id=row["id"],
            name=row["name"],
            folder=folder,
            start=start,
            config=row["config"],
            damaged=tuple(damaged),
        )


def _request(project: Project, prepared: Prepared) -> Request:
    config = prepared.config
    folder = None if config.adapter_path is None else project.relative(project.resolve(config.adapter_path))
    occupied = _what_occupies(project.resolve(config.adapter_path)) if config.adapter_path is not None else None
    return Request(
        fingerprint=prepared.fingerprint,
        settings=prepared.settings,
        target=prepared.target,
        name=config.name,
        folder=folder,
        new=config.new,
        occupied=occupied,
    )


def _look(project: Project, db: registry.Registry, prepared: Prepared) -> _Found:
    """All runs, read through on disk where this request could mean them."""
    found = _Found()
    config = prepared.config
    folder_asked = None if config.adapter_path is None else project.relative(project.resolve(config.adapter_path))
    for row in registry.candidate_runs(db):
        folder = project.from_root(row["adapter_path"])
        iteration, closed = row["iteration"], row["status"] == "completed"
        is_meant = (
            row["fingerprint"] == prepared.fingerprint
            or row["name"] == config.name
            or row["adapter_path"] == folder_asked
        )
        if is_meant and lock.is_held(folder / lock.NAME):
            found.held.add(row["name"])
        elif is_meant:
            recorded = [
                each["iteration"]
                for each in registry.checkpoints_of(db, row["id"])
                if each["status"] == "whole" and each["state_file"] and not each["state_pruned_at"]
            ]
            newest = checkpoints.newest(folder, fingerprint=row["fingerprint"], recorded=recorded)
            found.newest[row["name"]] = newest
            iteration = newest[0].iteration if newest[0] else 0
            closed = newest[0] is not None and newest[0].counters.closed_at is not None
        found.rows[row["name"]] = row
        found.candidates.append(
            Candidate(
                name=row["name"],
                folder=row["adapter_path"],
                fingerprint=row["fingerprint"],
                settings=row["config"].get("deciding", {}),
                iteration=iteration,
                target=row["target_iterations"],
                closed=closed,
                # a command that was killed before it made the folder
                has_folder=folder.is_dir() or row["status"] == "created",
            )
        )
    return found


def _enforce(decision: Decision) -> None:
    if decision.kind != "refuse":
        return
    if decision.differences:
        raise SettingsDiffer(decision.reason, decision.differences, hint=decision.hint)
    raise Refused(decision.reason, hint=decision.hint)


def _new_row(project: Project, db: registry.Registry, prepared: Prepared) -> dict[str, Any]:
    config = prepared.config
    adapter_path = None
    if config.adapter_path is not None:
        adapter_path = project.relative(project.resolve(config.adapter_path))
    taken = {path.name for path in project.adapters_folder.iterdir()} if project.adapters_folder.is_dir() else set()
    if config.name is not None and adapter_path is None and config.name in taken:
        _refuse_occupied(project.adapters_folder / config.name)
    stored = stored_config(prepared, {})
    made = registry.create_run(
        db,
        name=config.name,
        kind=config.fine_tune_type,
        fingerprint=prepared.fingerprint,
        model=project.relative(prepared.model_folder),
        model_identity=prepared.model_identity,
        data=project.relative(prepared.data_path),
        data_identity=prepared.data_identity,
        config=stored,
        target_iterations=prepared.target,
        adapter_path=adapter_path,
        note=config.note,
        tags=config.tag,
        avoid=taken,
    )
    return {"id": made.id, "name": made.name, "adapter_path": made.adapter_path, "config": stored, "status": "created"}


def stored_config(prepared: Prepared, automatic: Mapping[str, Any]) -> dict[str, Any]:
    """What `runs.config` holds: every setting, all that decides the weights, and what was chosen automatically."""
    return {
        **asdict(prepared.config),
        "deciding": prepared.settings,
        "validation_identity": prepared.validation_identity,
        "automatic": dict(automatic),
    }


def _bring_in_line(
    db: registry.Registry, row: Mapping[str, Any], start: Checkpoint | None, damaged: list[Damaged], folder: Path
) -> None:
    """Set damaged checkpoints aside, and give whole ones the row that a kill kept from being written."""
    there = {each["iteration"]: each for each in registry.checkpoints_of(db, row["id"])}
    for each in damaged:
        names = checkpoints.set_aside(folder, each.iteration)
        if each.iteration in there:
            registry.mark_checkpoint(db, row["id"], each.iteration, "corrupt" if names else "missing")
        registry.add_event(
            db,
            row["id"],
            None,
            kind="damaged",
            level="warning",
            iteration=each.iteration,
            message=f"the checkpoint at iteration {each.iteration} cannot be used: {each.reason}",
            detail={"set_aside": names},
        )
    for iteration, known in there.items():
        if known["status"] == "whole" and not (folder / known["adapter_file"]).exists():
            registry.mark_checkpoint(db, row["id"], iteration, "missing")
    if start is not None and there.get(start.iteration, {}).get("state_sha256") != start.state_sha256:
        _offer(start)
        _add_row(db, row["id"], start)


def _complete(db: registry.Registry, run_id: int, target: int, start: Checkpoint | None) -> None:
    """Give a run the status it has earned: one killed after its last checkpoint, or taken from its folder."""
    if start is None or start.counters.closed_at != target:
        return
    attempts = registry.attempts_of(db, run_id)
    if not attempts:
        registry.start_attempt(
            db,
            run_id,
            start_kind="exact",
            start_note="taken from its folder: the attempts before are not known",
            from_iteration=start.iteration,
            trained_tokens=start.counters.trained_tokens,
            target_iterations=target,
            device=start.environment["device"].partition(":")[0],
            environment=start.environment,
            command="",
        )
        attempts = registry.attempts_of(db, run_id)
    registry.end_attempt(db, attempts[-1]["id"], reason="finished", status="completed", iteration=start.iteration)


def _add_row(db: registry.Registry, run_id: int, found: Checkpoint) -> None:
    train_loss, validation_loss = checkpoints.losses(found)
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
        train_loss=train_loss,
        validation_loss=validation_loss,
        trained_tokens=found.counters.trained_tokens,
    )


def _recover_folders(project: Project, db: registry.Registry, prepared: Prepared) -> None:
    """Take runs whose row is gone from their folders."""
    known = {row["adapter_path"] for row in registry.candidate_runs(db)}
    names = {row["name"] for row in registry.candidate_runs(db)}
    folders = sorted(project.adapters_folder.iterdir()) if project.adapters_folder.is_dir() else []
    if prepared.config.adapter_path is not None:
        folders.append(project.resolve(prepared.config.adapter_path))
    for folder in folders:
        run = None if folder.is_symlink() or project.relative(folder) in known else describes_itself(folder)
        if run is None or run["name"] in names:
            continue
        made = registry.create_run(
            db,
            name=run["name"],
            kind=run["config"]["fine_tune_type"],
            fingerprint=run["fingerprint"],
            model=run["model"],
            model_identity=run["model_identity"],
            data=run["data"],
            data_identity=run["data_identity"],
            config=run["config"],
            target_iterations=run["target"],
            adapter_path=project.relative(folder),
            note=run["config"].get("note"),
            tags=run["config"].get("tag", ()),
        )
        newest = None
        for iteration in reversed(checkpoints.iterations(folder)):
            found = checkpoints.read(folder, iteration, fingerprint=run["fingerprint"])
            if isinstance(found, Checkpoint):
                newest = found
                _add_row(db, made.id, found)
        _complete(db, made.id, run["target"], newest)
        registry.add_event(
            db, made.id, None, kind="recovered", message=f"taken from its folder {made.adapter_path}: the row was gone"
        )


def describes_itself(folder: Path) -> dict[str, Any] | None:
    """What a run's folder says of its run, None where it is no folder of ours."""
    try:
        settings = json.loads((folder / checkpoints.SETTINGS).read_text(encoding="utf-8"))
        run = settings["mlxops"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if isinstance(run, dict) else None


def _what_occupies(folder: Path) -> str | None:
    if not folder.is_dir() or describes_itself(folder) is not None:
        return None
    if (folder / checkpoints.SETTINGS).exists() or any(folder.glob("*adapters*.safetensors")):
        return "holds an adapter that this toolkit did not make"
    return None


def _refuse_occupied(folder: Path) -> None:
    if any(path.name != lock.NAME for path in folder.iterdir()):
        raise Refused(
            f"the folder {str(folder)!r} is there already and is no run's",
            hint="choose another --name, or move it away",
        )


def _take_hold(held: ExitStack, folder: Path, holder: Mapping[str, Any], what: str, *, is_read: bool) -> None:
    """Make the run's folder, lock it, and clear it of what a kill left half-written.

    A run that was held when the others were read is busy even if it is free by now: nobody knows where it stands.
    """
    if not is_read:
        raise lock.busy(folder / lock.NAME, what)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock.hold(folder / lock.NAME, holder, what=what))
        checkpoints.sweep(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _offer(start: Checkpoint) -> None:
    try:
        checkpoints.offer(start)
    except OSError as error:
        raise _cannot_write(start.folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> Failed:
    return Failed(f"the run's folder {str(folder)!r} cannot be written: {error.strerror}")


def _state_folder(project: Project) -> Path:
    folder = project.root / ".mlxops"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(
            f"the project {str(project.root)!r} cannot be written: {error.strerror}", hint="train in a folder of yours"
        ) from error
    return folder
