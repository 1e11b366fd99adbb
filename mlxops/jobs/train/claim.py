"""Deciding which run a command works on, and taking hold of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from mlxops import data, registry
from mlxops.config import LoraConfig
from mlxops.errors import Failed, MlxopsError, Refused, SettingsDiffer
from mlxops.jobs.train import keep_last, recover
from mlxops.jobs.train.candidates import KnownRuns, folder_asked, own_runs, settle
from mlxops.jobs.train.prepare import Prepared
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.options import options_of
from mlxops.projects.project import Project
from mlxops.registry import JsonObject, waiting
from mlxops.training import checkpoints, lock
from mlxops.training.checkpoints import Checkpoint, Damaged
from mlxops.training.decide import Decision


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that this process alone works on, and where it continues."""

    decision: Decision
    run_id: int
    name: str
    folder: Path
    start: Checkpoint | None
    config: JsonObject
    prepared: Prepared
    damaged: tuple[Damaged, ...] = ()

    @property
    def iteration(self) -> int:
        """Where training continues, or begins."""
        origin = self.prepared.origin
        return self.start.iteration if self.start else origin.iteration if origin else 0

    @property
    def trained_tokens(self) -> int:
        """The tokens trained up to there, as far as they are known."""
        origin = self.prepared.origin
        return self.start.counters.trained_tokens if self.start else origin.trained_tokens if origin else 0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What `inv lora` would do now, the training with where it would begin, and the error it would end with, if any."""

    decision: Decision
    prepared: Prepared
    refusal: MlxopsError | None


def preview(project: Project, prepared: Prepared) -> Outlook:
    """What `claim` would do now, without doing any of it: each of its errors is the refusal here."""
    with ExitStack() as opened:
        db = None
        if project.registry_path.exists() and project.registry_path.stat().st_size:
            db = opened.enter_context(registry.open_read_only(project.registry_path))
        decision, runs, settled = settle(project, db, prepared)
        try:
            _enforce(decision)
            if decision.kind == "new" and settled.config.name is not None:
                registry.check_new_name(db, settled.config.name)
            if decision.kind != "finished" and decision.run in runs.held:
                folder = project.from_root(runs.rows[str(decision.run)].adapter_path)
                raise lock.busy(folder / lock.NAME, f"the run {decision.run!r}")
        except MlxopsError as error:
            return Outlook(decision=decision, prepared=settled, refusal=error)
        return Outlook(decision=decision, prepared=settled, refusal=None)


class Holder(TypedDict):
    """What a process says of itself in a lock that it holds."""

    pid: int
    host: str
    boot_id: str | None
    process_started: str | None
    since: str
    command: str


def holder(command: str) -> Holder:
    """What this process says of itself."""
    return {
        "pid": os.getpid(),
        "host": registry.this_host(),
        "boot_id": registry.boot_id(),
        "process_started": registry.process_start(os.getpid()),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
    }


@contextmanager
def deciding(project: Project, who: Holder) -> Iterator[None]:
    """Keep every training from beginning or resuming while the block runs: it decides under the same lock."""
    with lock.hold(state_folder(project) / "decide.lock", who, what="the project", wait=True):
        yield


@contextmanager
def claim(project: Project, db: registry.Registry, prepared: Prepared, command: str) -> Iterator[Claim]:
    """Decide and hold the run's lock while the block runs.

    Raises `SettingsDiffer` or `Refused` for a refusal, `Busy` where another process has the run.
    """
    who = holder(command)
    with ExitStack() as held:
        # two equal commands at once must not both find that there is no run yet
        with deciding(project, who):
            registry.close_dead_attempts(db)
            rows = own_runs(db)
            for unknown in recover.unknown_folders(project, rows, folder_asked(project, prepared, rows)):
                recover.take(project, db, unknown)
            decision, runs, prepared = settle(project, db, prepared)
            _enforce(decision)
            row = _new_row(project, db, prepared, runs) if decision.kind == "new" else runs.rows[str(decision.run)]
            assert row.id is not None  # folders without a row have been given one
            name, folder = row.name, project.from_root(row.adapter_path)
            start, damaged = runs.read.get(name, (None, []))
            is_to_complete = decision.kind == "finished" and start is not None and _lacks_its_end(row, start)
            if decision.kind != "finished" or is_to_complete or waiting.kept(folder):
                _take_hold(held, folder, who, f"the run {name!r}", is_read=name not in runs.held)
                if recover.record_waiting(db, row, folder) and is_to_complete:
                    # its end may have been among what waited
                    now = next(each for each in own_runs(db) if each.id == row.id)
                    is_to_complete = start is not None and _lacks_its_end(now, start)
                recover.bring_in_line(db, row.id, folder, start, damaged)
            if is_to_complete and start is not None:
                recover.complete(db, row.id, start)
                keep_last.catch_up(db, row.id, folder, prepared.config.keep_last)
        yield Claim(
            decision=decision,
            run_id=row.id,
            name=name,
            folder=folder,
            start=start,
            config=row.config,
            prepared=prepared,
            damaged=tuple(damaged),
        )


def stored_config(prepared: Prepared, automatic: JsonObject) -> JsonObject:
    """What `runs.config` holds: the settings of the run, all that decides the weights, what was chosen automatically.

    What only this one command was asked to do is left out.
    """
    return {
        **{each.name: getattr(prepared.config, each.name) for each in options_of(LoraConfig) if each.role != "command"},
        "origin": prepared.origin.to_config() if prepared.origin else None,
        "deciding": prepared.settings,
        "validation_identity": prepared.validation_identity,
        "content_identity": prepared.content_identity,
        "masking_rules": data.MASKING_RULES,
        "automatic": dict(automatic),
    }


def _enforce(decision: Decision) -> None:
    if decision.kind != "refuse":
        return
    if decision.differences:
        raise SettingsDiffer(decision.reason, decision.differences, hint=decision.hint)
    raise Refused(decision.reason, hint=decision.hint)


def _new_row(project: Project, db: registry.Registry, prepared: Prepared, runs: KnownRuns) -> ResumableRun:
    config, asked = prepared.config, folder_asked(project, prepared, runs.rows.values())
    origin = prepared.origin
    parent = runs.rows.get(origin.run) if origin and origin.run else None
    taken = {path.name for path in project.adapters_folder.iterdir()} if project.adapters_folder.is_dir() else set()
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
        adapter_path=None if asked is None else project.relative(asked),
        note=config.note,
        tags=config.tag,
        parent_id=parent.id if parent else None,
        branch_iteration=origin.iteration if origin and parent else None,
        avoid=taken,
    )
    return ResumableRun(
        id=made.id,
        name=made.name,
        status="created",
        fingerprint=prepared.fingerprint,
        config=stored,
        model=project.relative(prepared.model_folder),
        model_identity=prepared.model_identity,
        data=project.relative(prepared.data_path),
        data_identity=prepared.data_identity,
        iteration=0,
        target_iterations=prepared.target,
        adapter_path=made.adapter_path,
    )


def _lacks_its_end(row: ResumableRun, start: Checkpoint) -> bool:
    closed_at = start.counters.closed_at
    return closed_at is not None and (row.status != "completed" or row.target_iterations != closed_at)


def _take_hold(held: ExitStack, folder: Path, holder: Holder, what: str, *, is_read: bool) -> None:
    """Make the run's folder, lock it, and clear it of what a kill left half-written.

    A run that was held when it was to be read is busy even if it is free by now: nobody knows where it stands.
    """
    if not is_read:
        raise lock.busy(folder / lock.NAME, what)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock.hold(folder / lock.NAME, holder, what=what))
        checkpoints.sweep(folder)
    except OSError as error:
        raise recover.cannot_write(folder, error) from error


def state_folder(project: Project) -> Path:
    """The project's `.mlxops`, made if it is not there."""
    folder = project.root / ".mlxops"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(
            f"the project {str(project.root)!r} cannot be written: {error.strerror}", hint="train in a folder of yours"
        ) from error
    return folder
