"""The training loop: set up, train, close. It emits events and knows neither the database nor the screen."""

from __future__ import annotations

import math
import shlex
import signal
import time
from collections.abc import Callable

import mlx.core as mx

from mlxops.config import LoraConfig
from mlxops.errors import Failed
from mlxops.events import Event, Notice, Profiled, Report, Skipped, Started, Step, Stopped
from mlxops.training import schedule
from mlxops.training.batches import Batch
from mlxops.training.divergence import GIVE_UP_AFTER, give_up, is_spoilt
from mlxops.training.signals import StopRequest
from mlxops.training.state import Counters, Window
from mlxops.training.step import Snapshot, Trainer, Work

GIB = 2**30


def train(work: Work, hear: Callable[[Event], None], stop: StopRequest) -> Stopped:
    """Train until the target is reached, nothing improves any more or a stop is asked for; all is then on disk.

    Weights, and all metrics but those of `events.OF_THE_CLOCK`, are a function of model, rows and settings alone,
    wherever training was interrupted. Raises `Diverged` when `GIVE_UP_AFTER` batches in a row were left out or weights
    that are to be saved are spoilt; the newest checkpoint, and what the folder offers, is then one from before. Raises
    `Failed` where training comes to its end without a single update.
    """
    # ---- set up -------------------------------------------------------------------------------------------------
    config, plan, objective, profile = work.config, work.plan, work.objective, work.profile

    def emit(event: Event) -> None:
        with profile.part("registry and screen"):
            hear(event)

    _set_limits(config)
    trainer = Trainer(work)
    counters = trainer.counters
    rate = schedule.learning_rates(config, target=work.target)
    group = config.grad_accumulation_steps
    clock, since_save = _Clock(), _Minutes(config.save_minutes, work.now)
    saved_at = counters.iteration if work.start else None
    closed = work.start if work.start and work.start.has_closing and counters.iteration < work.target else None

    def report(window: Window, *, closing: bool) -> dict[str, float]:
        loss = objective.loss(window.values, window.weights)
        if loss is not None:
            counters.train_loss = loss
        metrics = objective.metrics(window.values, window.weights)
        metrics |= _metrics(counters, window, loss, rate(counters.iteration)) | clock.rates()
        metrics |= trainer.inputs.metrics() | work.probe()
        epoch = (counters.iteration - 1) // len(plan) + 1
        emit(Report(iteration=counters.iteration, epoch=epoch, metrics=metrics, closing=closing))
        return metrics

    def validate_if_due() -> bool:
        """Whether there was one to make, and it showed the lowest loss so far."""
        if not counters.validation_due or not work.validation or stop:
            return False
        with profile.part("validation"):
            counters.validation_due = trainer.validate(emit, stop, closing=False) is None
        return not counters.validation_due and counters.improvement.lowest_at == counters.iteration

    def is_stalled() -> bool:
        return config.early_stopping is not None and counters.improvement.since >= config.early_stopping

    def save(go_on: Snapshot | None = None) -> None:
        nonlocal saved_at, closed
        # what nothing comes after to prove, or older ones are removed for, is tried
        if is_spoilt(trainer, is_tried=go_on is not None or config.keep_last is not None):
            raise give_up(trainer, emit, f"nothing can be learnt with the weights after iteration {counters.iteration}")
        if closed is not None:
            # until this run has a checkpoint beyond it, the one it was finished with stays as it was
            emit(trainer.reopen(closed))
            closed = None
        with profile.part("checkpoint"):
            saved = trainer.save(go_on)
        emit(saved)
        if profile.is_on:
            emit(Profiled(parts=dict(profile.parts)))
        saved_at = counters.iteration
        since_save.restart()

    emit(
        Started(
            iteration=counters.iteration,
            target=work.target,
            batches_per_epoch=len(plan),
            trained_tokens=counters.trained_tokens,
            validates_every=config.steps_per_eval if work.validation else None,
            saves_every=config.save_every,
        )
    )
    if not work.has_begun:
        for note in trainer.inputs.notes:
            emit(Notice(kind="note", message=note))
    was_due = counters.validation_due
    validate_if_due()
    if work.start and was_due and not counters.validation_due and counters.iteration < work.target:
        emit(trainer.save())  # these weights are on the disk, without the validation that a stop had left out

    # ---- train --------------------------------------------------------------------------------------------------
    while counters.iteration < work.target and not stop and not is_stalled():
        clock.start()
        iteration = counters.iteration = counters.iteration + 1
        counters.closed_at, counters.closing = None, {}
        with profile.part("data"):
            batch, group_weights = plan.batch(iteration), trainer.group_weights(iteration)
        values, wrong = trainer.accumulate(batch, group_weights)
        weights = trainer.weights(batch)
        _count(counters, batch, values if wrong is None else None, weights)
        if iteration % group == 0 and trainer.has_gradient:
            trainer.update(rate(iteration), group_weights)
        clock.stop(batch.trained if wrong is None else 0)
        emit(
            Step(
                iteration=iteration,
                loss=objective.loss(values, weights) if wrong is None else None,
                tokens=batch.trained,
                seconds=clock.last,
            )
        )

        if wrong is not None:
            times = counters.skipped_in_a_row
            emit(Skipped(iteration=iteration, reason=wrong, origins=batch.origins, in_a_row=times))
            if times >= GIVE_UP_AFTER:
                raise give_up(trainer, emit, f"{wrong} {times} times in a row, up to iteration {iteration}")
        if iteration % config.steps_per_report == 0:
            report(counters.window, closing=False)
            counters.window = Window()
            clock.reset()
        counters.validation_due = iteration % config.steps_per_eval == 0
        is_lowest = validate_if_due()
        # weights may be spoilt while updates are being skipped: what was saved before then stays the newest
        is_due = (iteration % config.save_every == 0 or since_save.are_over()) and not counters.skipped_in_a_row
        if (is_lowest or is_due) and iteration < work.target:
            save()

    closes_with_an_update = counters.iteration == work.target and trainer.has_gradient
    if (counters.iteration == work.target or is_stalled()) and not (counters.updates or closes_with_an_update):
        raise _nothing_learnt(work, counters)

    # ---- stop short: what is saved is where to continue --------------------------------------------------------------
    if counters.iteration < work.target:
        if counters.iteration not in (0, saved_at):
            save()
        return _stopped_early(emit, counters) if is_stalled() else _stopped(emit, counters.iteration, stop)

    # ---- close: a report, an update and a validation off their grids are for this target alone, and a longer run
    # ---- resumes from before them ---------------------------------------------------------------------------------
    if counters.closed_at is None:
        go_on = trainer.snapshot()
        if counters.iteration % config.steps_per_report and counters.window.positions:
            metrics = report(counters.window, closing=True)
            go_on.counters.closing |= _finite(metrics)
        if trainer.has_gradient:
            trainer.update(rate(counters.iteration), trainer.group_weights(counters.iteration))
        is_whole = not (counters.validation_due and work.validation)
        if is_whole and counters.iteration % config.steps_per_eval and work.validation:
            with profile.part("validation"):
                measured = trainer.validate(emit, stop, closing=True)
            is_whole = measured is not None
            if measured is not None:
                losses = {"validation_loss": measured.loss, "validation_standard_error": measured.standard_error}
                go_on.counters.closing |= _finite(measured.metrics | losses)
        go_on.counters.closed_at = work.target if is_whole else None
        # the adapter file is the same however often the rest is cut short, so writing it again endangers nothing
        save(go_on)
        if not is_whole:
            return _stopped(emit, counters.iteration, stop)
    stopped = Stopped(iteration=counters.iteration, reason="finished")
    emit(stopped)
    return stopped


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _stopped(emit: Callable[[Event], None], iteration: int, stop: StopRequest) -> Stopped:
    name = signal.Signals(stop.signal_number).name if stop.signal_number else None
    stopped = Stopped(iteration=iteration, reason="signal", signal_name=name)
    emit(stopped)
    return stopped


def _stopped_early(emit: Callable[[Event], None], counters: Counters) -> Stopped:
    shown = counters.improvement
    message = f"stops early: no improvement in {_validations(shown.since)}"
    if shown.lowest_at == 0:
        message += "; the model was best before it was trained"
    elif shown.lowest is not None:
        message += f"; the lowest loss is {shown.lowest:.3f}, at iteration {shown.lowest_at:,}"
    emit(Notice(kind="early stopping", message=message, iteration=counters.iteration))
    stopped = Stopped(iteration=counters.iteration, reason="early stopping")
    emit(stopped)
    return stopped


def _nothing_learnt(work: Work, counters: Counters) -> Failed:
    where = f"`inv run.show {shlex.quote(str(work.run.get('name', 'latest')))}`"
    return Failed(
        f"nothing was learnt: no optimizer update was applied in {counters.iteration:,} iterations",
        hint=f"{where} names the batches that were skipped; look at their rows, or at the weights of the model",
    )


def _validations(count: int) -> str:
    return f"{count} validations" if count > 1 else "a validation"


class _Minutes:
    """Whether so many minutes have passed since the last restart; None never does."""

    def __init__(self, minutes: float | None, now: Callable[[], float]) -> None:
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._now = now
        self.restart()

    def restart(self) -> None:
        self._started = self._now()

    def are_over(self) -> bool:
        return self._now() - self._started >= self._seconds


class _Clock:
    """Seconds and trained tokens of this attempt since the last report: rates never mix attempts."""

    def __init__(self) -> None:
        self.last = 0.0
        self.reset()

    def reset(self) -> None:
        self.seconds, self.tokens, self.iterations = 0.0, 0, 0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self, tokens: int) -> None:
        self.last = time.perf_counter() - self._started
        self.seconds += self.last
        self.tokens += tokens
        self.iterations += 1

    def rates(self) -> dict[str, float]:
        if not self.iterations:
            return {}
        return {
            "tokens_per_second": self.tokens / self.seconds,
            "iterations_per_second": self.iterations / self.seconds,
        }


def _set_limits(config: LoraConfig) -> None:
    if config.memory_limit is not None:
        mx.set_memory_limit(int(config.memory_limit * GIB))
    if config.cache_limit is not None:
        mx.set_cache_limit(int(config.cache_limit * GIB))


def _count(counters: Counters, batch: Batch, values: dict[str, float] | None, weights: dict[str, float]) -> None:
    counters.window.real += batch.real
    counters.window.positions += batch.positions
    if values is None:
        counters.skipped_in_a_row += 1
        return
    counters.skipped_in_a_row = 0
    counters.window.add(values, weights)
    counters.trained_tokens += batch.trained


def _metrics(counters: Counters, window: Window, loss: float | None, learning_rate: float) -> dict[str, float]:
    return {
        "train_loss": float("nan") if loss is None else loss,
        "learning_rate": learning_rate,
        "gradient_norm": counters.gradient_norm if counters.gradient_norm is not None else float("nan"),
        "trained_tokens": counters.trained_tokens,
        "padding_share": 1 - window.real / window.positions,
        "peak_memory": mx.get_peak_memory(),
        "active_memory": mx.get_active_memory(),
    }
