"""When training cannot continue: noticing weights that are spoilt, going back to a good checkpoint, and saying why."""

from __future__ import annotations

from collections.abc import Callable

from mlxops import words
from mlxops.errors import Diverged
from mlxops.events import Event, Notice, Stopped
from mlxops.training import checkpoints
from mlxops.training.batches import Batch
from mlxops.training.checkpoints import Checkpoint
from mlxops.training.step import Trainer

GIVE_UP_AFTER = 5
"""Batches left out in a row before a run is taken to have diverged."""

_SHOWN = 8


def is_spoilt(trainer: Trainer, *, is_tried: bool) -> bool:
    """Whether the weights are not finite, or, where that is tried, the last batch learnt from teaches nothing any more.

    Huge weights can be finite and yet good for nothing; only trying them tells.
    """
    if not trainer.has_finite_weights():
        return True
    batch = _last_learnt(trainer)
    return is_tried and batch is not None and not trainer.can_learn_from(batch)


def give_up(trainer: Trainer, emit: Callable[[Event], None], why: str) -> Diverged:
    """End a training that cannot continue: the newest good checkpoint is what the folder offers. Returns what to raise.

    A checkpoint is good if the last batch learnt from can be learnt from with its weights; newer ones are set aside.
    Where rows and not the weights are to blame, that is the newest.
    """
    is_to_blame = is_spoilt(trainer, is_tried=True)
    good = _go_back(trainer, _last_learnt(trainer), emit)
    emit(Stopped(iteration=good, reason="diverged"))
    plan, counters = trainer.work.plan, trainer.counters
    left_out = range(max(1, counters.skipped_in_a_row))
    rows = {origin: None for back in left_out for origin in plan.batch(counters.iteration - back).origins}
    return _diverged(why, list(rows), good, is_to_blame=is_to_blame)


def _last_learnt(trainer: Trainer) -> Batch | None:
    counters = trainer.counters
    iteration = counters.iteration - counters.skipped_in_a_row
    return trainer.work.plan.batch(iteration) if iteration > 0 else None


def _go_back(trainer: Trainer, batch: Batch | None, emit: Callable[[Event], None]) -> int:
    folder, fingerprint = trainer.work.folder, trainer.work.fingerprint
    for iteration in checkpoints.iterations(folder):
        found = checkpoints.read(folder, iteration, fingerprint=fingerprint)
        if not isinstance(found, Checkpoint):  # the next start sets it aside
            continue
        trainer.model.load_weights(list(checkpoints.load(found)[0].items()), strict=False)
        if batch is None or trainer.can_learn_from(batch):
            checkpoints.offer(found)
            return iteration
        checkpoints.set_aside(folder, iteration)
        message = f"the checkpoint at iteration {iteration:,} is set aside: nothing can be learnt with its weights"
        emit(Notice(kind="spoilt", message=message, level="warning", iteration=iteration))
    checkpoints.offer_nothing(folder)
    return 0


def _diverged(why: str, rows: list[str], good: int, *, is_to_blame: bool) -> Diverged:
    where = f"goes back to iteration {good}, the last good checkpoint" if good else "has no checkpoint from before"
    smaller = (
        f"a smaller `--learning-rate`, `--warmup` or `--max-grad-norm 1` with `--new`{' or `--branch`' if good else ''}"
    )
    return Diverged(
        f"{why} (rows {words.listed(rows, _SHOWN)}); the run {where}",
        hint=smaller if is_to_blame else f"look at {rows[0]} and the rows beside it; or {smaller}",
    )
