"""How fast an attempt trains and how long it still takes: the one estimate that every screen shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mlxops.events import Event, Saved, Started, Step, Validation

_WINDOW = 50  # steps: batches differ in length, and what is kept of an epoch makes the next one faster


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one attempt knows after its last event. Rates are those of the steps alone, None before the first one.

    `seconds_left` is None before the first step, and of the moment `at` on the clock; `left` is that of another one.
    """

    iteration: int
    target: int
    at: float
    step_loss: float | None = None
    iterations_per_second: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None

    def left(self, now: float) -> float | None:
        """Seconds that are left at a later moment of the same clock."""
        return None if self.seconds_left is None else max(self.seconds_left - (now - self.at), 0.0)


class Pace:
    """Listens to what one attempt says. `estimate` is replaced as a whole, so that any thread may read it.

    The rate is the mean of the last steps without the attempt's first one, which prepares the others. What is left is
    the steps at this rate, and the validations and checkpoints to come, each as long as the newest one was.
    """

    def __init__(self, iteration: int, target: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.estimate = Estimate(iteration=iteration, target=target, at=clock())
        self._steps: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)
        self._validates_every: int | None = None
        self._saves_every: int | None = None
        self._validated_at: int | None = None
        self._validation_seconds = 0.0
        self._saving_seconds = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that are left now, None before the first step."""
        return self.estimate.left(self.clock())

    def hear(self, event: Event) -> None:
        """Take account of an event; what says nothing of progress changes nothing."""
        match event:
            case Started():
                self._validates_every, self._saves_every = event.validates_every, event.saves_every
                self.estimate = Estimate(iteration=event.iteration, target=event.target, at=self.clock())
            case Step():
                self._steps.append((event.seconds, event.tokens))
                self._estimate(event.iteration, event.loss)
            case Validation():
                self._validated_at, self._validation_seconds = event.iteration, event.seconds
                self._estimate(self.estimate.iteration, self.estimate.step_loss)
            case Saved():
                self._saving_seconds = event.seconds
                self._estimate(self.estimate.iteration, self.estimate.step_loss)

    def _estimate(self, iteration: int, loss: float | None) -> None:
        target, rate, tokens_per_second = self.estimate.target, None, None
        steps = list(self._steps)[1:] or list(self._steps)
        seconds = sum(took for took, _ in steps)
        if seconds > 0:
            rate, tokens_per_second = len(steps) / seconds, sum(tokens for _, tokens in steps) / seconds
        self.estimate = Estimate(
            iteration=iteration,
            target=target,
            at=self.clock(),
            step_loss=loss,
            iterations_per_second=rate,
            tokens_per_second=tokens_per_second,
            seconds_left=None if rate is None else self._seconds_left(iteration, target, rate),
        )

    def _seconds_left(self, iteration: int, target: int, rate: float) -> float:
        validations = _left_on_grid(iteration, target, self._validates_every)
        if self._validates_every and iteration % self._validates_every == 0 and self._validated_at != iteration:
            validations += 1  # it is under way
        savings = _left_on_grid(iteration, target, self._saves_every)
        seconds = max(target - iteration, 0) / rate
        return seconds + validations * self._validation_seconds + savings * self._saving_seconds


def _left_on_grid(iteration: int, target: int, every: int | None) -> int:
    """How many multiples lie beyond an iteration up to the target, and the closing one of a target off the grid.

    >>> _left_on_grid(10, 30, 10), _left_on_grid(10, 35, 10), _left_on_grid(35, 35, 10), _left_on_grid(10, 30, None)
    (2, 3, 0, 0)
    """
    if not every or iteration >= target:
        return 0
    return target // every - iteration // every + (target % every > 0)
