"""Working on a run that is claimed: the fast BLAS and MLX are loaded, the attempt is recorded, the model is trained."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import registry
from mlxops.adapters import adapter_config
from mlxops.adapters.adapter_config import DescribedRun
from mlxops.analysis.pace import Pace
from mlxops.config import LoraConfig
from mlxops.errors import Diverged, Failed, Interrupted, MlxopsError
from mlxops.events import Event, Listener, Notice, Report, Saved, Step, Stopped
from mlxops.foreign import in_words
from mlxops.jobs.train import adopt, first_checkpoint, fit, free_space, hidden_states, latest, memory, recover
from mlxops.jobs.train.claim import Claim, stored_config
from mlxops.jobs.train.environment import Environment, start_kind_of
from mlxops.jobs.train.keep_last import Keeper
from mlxops.jobs.train.prepare import Prepared
from mlxops.models.loader_errors import loader_errors
from mlxops.options import options_of
from mlxops.projects import blas, machine
from mlxops.projects.project import Project
from mlxops.registry import JsonObject
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder, diverged_before
from mlxops.system import gpu, host
from mlxops.training import lock, signals, ways

if TYPE_CHECKING:
    from mlxops.training.step import Work


def rehearse(prepared: Prepared, automatic: Mapping[str, Any], *, cache: Path | None, blas_setting: str | None) -> None:
    """Make everything of which only MLX knows whether it can be made, and throw it away. Reads no weights.

    `automatic` is what the run was begun with, empty for a new one: the BLAS stays as it is loaded here. Raises
    `BadRequest` for a model that cannot be loaded or cannot compute, layers, optimizer arguments or a schedule that
    cannot be, and rows with tokens that the model gives no score.
    """
    blas.load(
        threads=automatic.get("blas_threads"),
        core_type=automatic.get("core_type"),
        cache=cache,
        setting=blas_setting,
    )
    from mlxops.models.loading import load_model, try_out
    from mlxops.training import layers, optimizers, schedule

    config, folder = prepared.config, prepared.model_folder
    model, _ = load_model(folder, lazy=True, trust_remote_code=config.trust_remote_code)
    rows = [*prepared.train.rows, *(prepared.validation.rows if prepared.validation else ())]
    fit.check_scores(rows, try_out(model, folder.name), folder.name)
    with loader_errors(f"the layers of {folder.name!r} cannot be adapted", name=folder.name):
        layers.prepare(model, config)
    if prepared.to_adopt is not None:
        adopt.check_fit(prepared.to_adopt, layers.trainable(model))
    optimizers.make(prepared.config)
    schedule.learning_rates(prepared.config, target=prepared.target)(1)


def fine_tune(
    project: Project,
    db: registry.Registry,
    prepared: Prepared,
    claim: Claim,
    environment: Environment,
    *,
    command: str,
    listeners: Sequence[Listener] = (),
    before_leaving: Callable[[], None] | None = None,
) -> Stopped:
    """Train a claimed run to its target.

    Raises `Interrupted` when a signal ended it (everything is saved), `Diverged` or `Failed` when the work failed.
    """
    start_kind, start_note = start_kind_of(claim, environment)
    changes = _changes(claim.config, prepared.config)
    _keep_words(db, claim, prepared.config)
    warnings = diverged_before(db, claim.run_id)
    attempt = registry.start_attempt(
        db,
        claim.run_id,
        start_kind=start_kind,
        start_note=start_note,
        from_iteration=claim.iteration,
        trained_tokens=claim.trained_tokens,
        target_iterations=prepared.target,
        device=environment.device,
        environment={**machine.facts(), **environment.exact, "versions": machine.versions()},
        command=command,
        git_commit=machine.git_commit(project.root),
        config=stored_config(prepared, environment.automatic),
        closing=_to_forget(claim, prepared),
    )

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    restore = partial(recover.restore, project, claim.folder)
    writer = Writer(db, claim.run_id, attempt, folder=claim.folder, restore=restore, say=tell)
    record = Recorder(writer, saved_at=claim.iteration)
    keeper = Keeper(db, claim.run_id, claim.folder, prepared.config.keep_last, writer)
    pace = Pace(claim.iteration, prepared.target)
    heartbeat = registry.Heartbeat(db.path, attempt, place=lambda: writer.place, progress=lambda: _progress(pace))

    def emit(event: Event) -> None:
        record(event)
        has_begun = pace.estimate.seconds_left is not None
        pace.hear(event)
        if isinstance(event, Report) or (not has_begun and isinstance(event, Step)):
            heartbeat.ask()
        tell(event)
        if isinstance(event, Saved) or writer.has_come_back:
            writer.has_come_back = False
            for notice in keeper.prune(record.saved_at):
                emit(notice)

    def say_stopping(signal_number: int) -> None:
        # `inv train.stop` must not be a second request, which would leave at once
        lock.say(claim.folder / lock.NAME, stopping=signal.Signals(signal_number).name)
        message = "finishing this step, then saving (press Ctrl-C again to quit without saving)"
        tell(Notice(kind="stopping", message=message))
        heartbeat.ask()  # monitors look again where something was written

    status, reason, iteration, error, away = "failed", "error", claim.iteration, None, None
    stop = signals.StopRequest()
    try:
        with (
            heartbeat,
            signals.listen(say_stopping, before_leaving) as stop,
            nullcontext() if prepared.config.allow_sleep else host.keep_awake(os.getpid()),
            gpu.wired(),
        ):
            for note in prepared.notes if claim.decision.kind == "new" else ():
                record(Notice(kind="note", message=note))  # the screen has said it at every start
            if start_kind in ("branch", "warm"):
                record(Notice(kind="begun", message=start_note or "", iteration=claim.iteration))
            for notice in (*_notices(claim, prepared, environment, start_note, changes), *warnings):
                emit(notice)
            work = replace(_work(project, prepared, claim, environment, emit), carry=writer.keep)
            from mlxops.training.loop import train

            stopped = train(work, emit, stop)
        iteration = stopped.iteration
        is_over = stopped.reason != "signal"
        if is_over:
            hidden_states.remove(project, prepared)
        status, reason = ("completed", stopped.reason) if is_over else ("interrupted", stopped.signal_name or "signal")
        if stop.signal_number is not None and not is_over:
            raise Interrupted(
                stop.signal_number,
                f"saved and stopped by {stopped.signal_name} at iteration {stopped.iteration:,} of {prepared.target:,}",
                hint="the same command resumes from there",
            )
    except KeyboardInterrupt:
        status, reason = "interrupted", "SIGINT"
        raise
    except MlxopsError as failure:
        if not isinstance(failure, Interrupted):
            iteration, error = record.saved_at, failure.message
        if isinstance(failure, Diverged):
            reason = "diverged"
        raise
    except Exception as failure:
        iteration, error = record.saved_at, f"{type(failure).__name__}: {failure}"
        if lacks := gpu.trouble(failure):
            raise _lacking(lacks, failure, iteration, prepared) from failure
        if stop.signal_number is None or not isinstance(failure, RuntimeError):
            raise
        # Ctrl-C in a terminal also ends the compiler that MLX makes its kernels with, and with it the step
        status, reason = "interrupted", signal.Signals(stop.signal_number).name
        raise Interrupted(
            stop.signal_number,
            f"stopped by {reason}; the newest checkpoint is that of iteration {iteration:,} of {prepared.target:,}",
            hint="the same command resumes from there",
        ) from failure
    finally:
        # where the registry failed before the first step, its error is already on the way
        with suppress(Failed):
            away = record.end(reason=reason, status=status, iteration=iteration, error=error)
            if away is not None:
                message = f"the registry is still away: {away}; what it misses is kept in {claim.folder.name}"
                tell(Notice(kind="registry away", message=message, level="warning"))
            elif writer.has_come_back:
                for notice in keeper.prune(record.saved_at):
                    emit(notice)
    if away is not None:
        raise Failed(
            f"trained to iteration {iteration:,} and saved, but the registry could not be written: {away}",
            hint="the same command completes the run's history once it can be written",
        )
    return stopped


def _progress(pace: Pace) -> registry.Progress | None:
    """What the registry is told between two reports, None before the attempt's first step."""
    known, left = pace.estimate, pace.left
    if left is None:
        return None
    return registry.Progress(
        iteration=known.iteration,
        step_loss=known.step_loss,
        iterations_per_second=known.iterations_per_second,
        tokens_per_second=known.tokens_per_second,
        seconds_left=left,
    )


def _lacking(lacks: gpu.Trouble, failure: BaseException, saved_at: int, prepared: Prepared) -> Failed:
    """The error of a step that there was no memory for, or that the system stopped, with where to resume."""
    kept, again, smaller = "there is no checkpoint yet", "starts again", "a smaller `--batch-size`"
    if saved_at:
        kept = f"the newest checkpoint is that of iteration {saved_at:,} of {prepared.target:,}"
        again, smaller = "resumes from there", "`--branch` with a smaller `--batch-size`"
    hint = f"the same command {again}; {smaller} or `--max-seq-length` has shorter steps"
    if lacks == "memory":
        hint = (
            f"close other programs, and the same command {again}; {smaller} or `--max-seq-length`, or with "
            "`--grad-checkpoint`, takes less"
        )
    return Failed(f"{gpu.SENTENCES[lacks]}: {in_words(failure)}; {kept}", hint=hint)


def _to_forget(claim: Claim, prepared: Prepared) -> list[str]:
    """The metrics of the last target's closing, which the longer run that starts now does not have."""
    before = claim.start
    return list(before.counters.closing) if before is not None and before.iteration < prepared.target else []


# a run stores the iterations that epochs come to
_MAY_CHANGE = [
    each.name for each in options_of(LoraConfig) if each.role in ("keeping", "target") and each.instead_of is None
]


def _changes(config: JsonObject, now: LoraConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that may change in the course of a run and did: name, before, now."""
    pairs = {name: (config[name], getattr(now, name)) for name in _MAY_CHANGE if name in config}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _keep_words(db: registry.Registry, claim: Claim, config: LoraConfig) -> None:
    """A note or tags given when a run continues replace those it had."""
    if config.note is not None:
        registry.update_run(db, claim.run_id, note=config.note)
    if config.tag:
        registry.set_tags(db, claim.run_id, config.tag)


def _notices(
    claim: Claim,
    prepared: Prepared,
    environment: Environment,
    start_note: str | None,
    changes: Mapping[str, tuple[Any, Any]],
) -> list[Notice]:
    said = [Notice(kind="note", message=note) for note in environment.notes]
    for each in claim.damaged:
        message = f"the checkpoint at iteration {each.iteration:,} cannot be used and is set aside: {each.reason}"
        said.append(Notice(kind="set aside", message=message, level="warning", iteration=each.iteration))
    if claim.start is not None:
        message = f"resumes from iteration {claim.start.iteration:,}"
        said.append(Notice(kind="resumed", message=message, iteration=claim.start.iteration))
    if changes:
        message = ", ".join(f"{name} {was!r} → {now!r}" for name, (was, now) in changes.items())
        said.append(Notice(kind="settings", message=f"changed: {message}", detail=dict(changes)))
    if start_note and claim.start is not None:
        message = f"the result can differ from an uninterrupted run's: {start_note}"
        said.append(Notice(kind="inexact", message=message, level="warning"))
    return said


def _work(project: Project, prepared: Prepared, claim: Claim, environment: Environment, emit: Listener) -> Work:
    """The model, loaded and made ready, and all else the loop wants."""
    from mlxops.models.loading import load_model
    from mlxops.training import batches, layers
    from mlxops.training.profile import Profile
    from mlxops.training.step import Work

    config = prepared.config
    model, _ = load_model(
        prepared.model_folder, trust_remote_code=config.trust_remote_code, dtype=environment.automatic.get("dtype")
    )
    layers.prepare(model, config)
    free_space.check_disk(prepared, claim, layers.trainable(model), emit)
    free_space.check_memory(prepared, environment, emit)
    if claim.decision.kind == "new":  # once, not at each resume
        free_space.check_place(project, emit)
    origin = prepared.origin if claim.start is None else None
    begun = first_checkpoint.read(project, origin, layers.trainable(model)) if origin else None
    if origin:
        first_checkpoint.keep_originals(claim.folder, origin)
    run = _describe(project, prepared, claim, environment)
    adapter_config.write(claim.folder, config, run)
    latest.point_at(project, claim.folder)
    rows = prepared.validation.rows if prepared.validation else ()
    work = Work(
        model=model,
        config=config,
        plan=prepared.plan,
        validation=batches.fixed_batches(
            rows, batch_size=config.batch_size, count=config.val_batches, seed=config.seed
        ),
        target=prepared.target,
        folder=claim.folder,
        fingerprint=prepared.fingerprint,
        environment=environment.exact,
        run=run,
        start=claim.start,
        probe=_probe,
        ways=ways.choose(environment.automatic),
        room=hidden_states.room(project, prepared, environment),
        profile=Profile(on=config.profile),
        has_begun=claim.start is not None,
        expected_memory=memory.to_hold_to(prepared, environment),
    )
    return first_checkpoint.begin(work, begun, emit) if begun else work


def _probe() -> dict[str, float]:
    return {"system_memory_percent": machine.system_memory_percent(), "cpu_percent": machine.cpu_percent()}


def _describe(project: Project, prepared: Prepared, claim: Claim, environment: Environment) -> DescribedRun:
    """The run as its folder describes it."""
    return {
        "name": claim.name,
        "fingerprint": prepared.fingerprint,
        "model": project.relative(prepared.model_folder),
        "model_identity": prepared.model_identity,
        "data": project.relative(prepared.data_path),
        "data_identity": prepared.data_identity,
        "target": prepared.target,
        "config": stored_config(prepared, environment.automatic),
    }
