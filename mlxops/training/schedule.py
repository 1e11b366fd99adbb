"""The learning rate of an iteration. The curves are mlx's; the warm-up and the counting in iterations are ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import mlx.core as mx
from mlx.optimizers import schedulers

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest


def learning_rates(config: LoraConfig, *, target: int) -> Callable[[int], float]:
    """The learning rate as a function of the iteration, counted from 1.

    It rises linearly over the warm-up, reaching `learning_rate` at its last iteration (no update is made at the
    starting rate), and follows the schedule from there. A schedule without arguments takes all that is left, and would
    reach 0 at the iteration after the last. Raises `BadRequest` where the schedule cannot take its arguments.
    """
    peak = max(1, config.warmup)
    curve = _curve(config, remaining=max(1, target - peak + 1))

    def at(iteration: int) -> float:
        if iteration <= config.warmup:
            rise = config.learning_rate - config.warmup_init
            return config.warmup_init + rise * iteration / config.warmup
        return curve(iteration - peak)

    return at


def _curve(config: LoraConfig, *, remaining: int) -> Callable[[int], float]:
    if config.lr_schedule == "constant":
        return lambda _: config.learning_rate
    arguments: list[float] = list(config.lr_schedule_arguments)
    if not arguments:
        if config.lr_schedule == "cosine_decay":
            arguments = [remaining]
        elif config.lr_schedule == "linear_schedule":
            arguments = [0.0, remaining]
    make = getattr(schedulers, config.lr_schedule)
    try:
        inspect.signature(make).bind(config.learning_rate, *arguments)
        schedule = make(config.learning_rate, *arguments)
    except (TypeError, ValueError) as error:
        takes = ", ".join(list(inspect.signature(make).parameters)[1:])
        raise BadRequest(
            f"the schedule {config.lr_schedule} takes {takes} after the learning rate, not {arguments!r}",
            hint="`--lr-schedule-arguments 400,1e-6`; in a recipe lr_schedule: {name: …, arguments: […]}",
        ) from error
    return lambda step: float(schedule(mx.array(step)).item())
