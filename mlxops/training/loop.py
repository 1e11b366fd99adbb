"""The training loop: set up, go on, close. It emits events and knows neither the database nor the screen."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable

import mlx.core as mx

from mlxops.config import LoraConfig
from mlxops.errors import Diverged
from mlxops.events import Event, Notice, Report, Skipped, Started, Step, Stopped
from mlxops.training import checkpoints, schedule
from mlxops.training.batches import Batch
from mlxops.training.signals import StopRequest
from mlxops.training.state import Counters, Window
from mlxops.training.step import Trainer, Work

GIVE_UP_AFTER = 5
"""Batches left out in a row before a run is taken to have diverged."""

GIB = 2**30


def train(work: Work, emit: Callable[[Event], None], stop: StopRequest) -> Stopped:
    """Train until the target is reached or a stop is asked for, with a whole checkpoint on disk on return.

    Weights, and metrics that are no wall-clock figures, are a function of model, rows and settings alone, wherever
    training was interrupted. Raises `Diverged` when `GIVE_UP_AFTER` batches in a row were not finite; the newest
    checkpoint, and what the folder offers, is then one from before them whose weights are not spoilt.
    """
    # ---- set up -------------------------------------------------------------------------------------------------
    config, plan = work.config, work.plan
    _set_limits(config)
    trainer = Trainer(work)
    counters = trainer.counters
    rate = schedule.learning_rates(config, target=work.target)
    group = config.grad_accumulation_steps
    clock = _Clock()
    saved_at = counters.iteration if work.start else None

    def report(window: Window, *, closing: bool) -> dict[str, float]:
        if window.tokens:
            counters.train_loss = window.loss / window.tokens
        metrics = _metrics(counters, window, rate(counters.iteration)) | clock.rates() | work.probe()
        epoch = (counters.iteration - 1) // len(plan) + 1
        emit(Report(iteration=counters.iteration, epoch=epoch, metrics=metrics, closing=closing))
        return metrics

    def validate_if_due() -> None:
        if counters.validation_due and work.validation and not stop:
            counters.validation_due = trainer.validate(emit, stop, closing=False) is None

    emit(
        Started(
            iteration=counters.iteration,
            target=work.target,
            batches_per_epoch=len(plan),
            trained_tokens=counters.trained_tokens,
        )
    )
    validate_if_due()

    # ---- go on --------------------------------------------------------------------------------------------------
    while counters.iteration < work.target and not stop:
        clock.start()
        iteration = counters.iteration = counters.iteration + 1
        counters.closed_at, counters.closing = None, {}
        first = iteration - (iteration - 1) % group
        group_tokens = plan.trained_in(first, first + group - 1)

        batch = plan.batch(iteration)
        loss, finite = trainer.accumulate(batch, group_tokens)
        _count(counters, batch, loss if finite else None)
        if iteration % group == 0 and counters.group_tokens:
            trainer.update(rate(iteration), group_tokens)
        clock.stop(batch.trained if finite else 0)
        emit(
            Step(
                iteration=iteration,
                loss=loss / batch.trained if finite and batch.trained else None,
                tokens=batch.trained,
                seconds=clock.last,
            )
        )

        if not finite:
            emit(_skipped(counters, batch, loss))
            if counters.skipped_in_a_row >= GIVE_UP_AFTER:
                good = _go_back(trainer, emit)
                emit(Stopped(iteration=good, reason="diverged"))
                raise _diverged(counters, batch, good)
        if iteration % config.steps_per_report == 0:
            report(counters.window, closing=False)
            counters.window = Window()
            clock.reset()
        counters.validation_due = iteration % config.steps_per_eval == 0
        validate_if_due()
        # weights may be spoilt while updates are being skipped: what was saved before then stays the newest
        if iteration % config.save_every == 0 and iteration < work.target and not counters.skipped_in_a_row:
            emit(trainer.save())
            saved_at = iteration

    # ---- stop short: what is saved is where to go on --------------------------------------------------------------
    if counters.iteration < work.target:
        if counters.iteration not in (0, saved_at):
            emit(trainer.save())
        return _stopped(emit, counters.iteration, stop)

    # ---- close: a report, an update and a validation off their grids are for this target alone, and a longer run
    # ---- goes on from before them ---------------------------------------------------------------------------------
    if counters.closed_at is None:
        go_on = trainer.snapshot()
        if counters.iteration % config.steps_per_report and counters.window.positions:
            metrics = report(counters.window, closing=True)
            go_on.counters.closing |= _finite(metrics)
        if counters.group_tokens:
            first = counters.iteration - (counters.iteration - 1) % group
            trainer.update(rate(counters.iteration), plan.trained_in(first, first + group - 1))
        is_whole = not (counters.validation_due and work.validation)
        if is_whole and counters.iteration % config.steps_per_eval and work.validation:
            measured = trainer.validate(emit, stop, closing=True)
            is_whole = measured is not None
            if measured is not None:
                losses = {"validation_loss": measured.loss, "validation_standard_error": measured.standard_error}
                go_on.counters.closing |= _finite(losses)
        go_on.counters.closed_at = work.target if is_whole else None
        # the adapter file is the same however often the rest is cut short, so writing it again endangers nothing
        emit(trainer.save(go_on))
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


def _count(counters: Counters, batch: Batch, loss: float | None) -> None:
    counters.window.real += batch.real
    counters.window.positions += batch.tokens.size
    if loss is None:
        counters.skipped_in_a_row += 1
        return
    counters.skipped_in_a_row = 0
    counters.window.loss += loss
    counters.window.tokens += batch.trained
    counters.trained_tokens += batch.trained


def _metrics(counters: Counters, window: Window, learning_rate: float) -> dict[str, float]:
    return {
        "train_loss": window.loss / window.tokens if window.tokens else float("nan"),
        "learning_rate": learning_rate,
        "gradient_norm": counters.gradient_norm if counters.gradient_norm is not None else float("nan"),
        "trained_tokens": counters.trained_tokens,
        "padding_share": 1 - window.real / window.positions,
        "peak_memory": mx.get_peak_memory(),
        "active_memory": mx.get_active_memory(),
    }


def _skipped(counters: Counters, batch: Batch, loss: float) -> Skipped:
    what = "gradient" if loss == loss and abs(loss) != float("inf") else "loss"
    return Skipped(
        iteration=counters.iteration,
        reason=f"the {what} was not finite",
        origins=batch.origins,
        in_a_row=counters.skipped_in_a_row,
    )


def _go_back(trainer: Trainer, emit: Callable[[Event], None]) -> int:
    """Have the newest good checkpoint be what the folder offers, and return its iteration, 0 without one.

    Weights can be spoilt by an update whose gradient was finite. Then even the last batch that was finite no longer
    is, and the checkpoints since are set aside; else the rows are to blame, and they are kept.
    """
    work, counters = trainer.work, trainer.counters
    last_finite = counters.iteration - counters.skipped_in_a_row
    if last_finite and not _is_finite(trainer, work.plan.batch(last_finite)):
        for iteration in checkpoints.iterations(work.folder):
            if iteration >= last_finite:
                checkpoints.set_aside(work.folder, iteration)
                message = f"the checkpoint at iteration {iteration:,} is set aside: its weights give nothing finite"
                emit(Notice(kind="spoilt", message=message, level="warning", iteration=iteration))
    newest, _ = checkpoints.newest(work.folder, fingerprint=work.fingerprint)
    if newest is None:
        checkpoints.offer_nothing(work.folder)
        return 0
    checkpoints.offer(newest)
    return newest.iteration


def _is_finite(trainer: Trainer, batch: Batch) -> bool:
    trainer.accumulated = None
    return trainer.accumulate(batch, batch.trained)[1]


def _diverged(counters: Counters, batch: Batch, good: int) -> Diverged:
    where = f"goes back to iteration {good}, the last good checkpoint" if good else "has no checkpoint from before"
    return Diverged(
        f"loss or gradient was not finite {counters.skipped_in_a_row} times in a row, up to iteration "
        f"{counters.iteration} (rows {', '.join(batch.origins)}); the run {where}",
        hint=f"a smaller --learning-rate, --warmup or --max-grad-norm 1 with --new; or look at {batch.origins[0]}",
    )
