"""Putting a log of `mlx_lm.lora` together: attempts, how far each came, and its points on their way to the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlxops.adapters import mlx_lm_log
from mlxops.adapters.mlx_lm_log import Begins, Point, Reached
from mlxops.registry import JsonObject, Points

_BEGINNING = 1 << 10  # bytes
_LONGEST = 1e9  # seconds that a training may take


@dataclass(kw_only=True)
class Attempt:
    """One training of a log. `seconds` is what its lines say it took, pauses and saving not among them."""

    from_iteration: int
    adapter: str | None = None
    target: int | None = None
    reached: int = 0
    seconds: float = 0.0
    trained_tokens: int = 0
    train_loss: float | None = None
    best_validation_loss: float | None = None
    is_ended: bool = False
    firsts: dict[bool, int] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return self.is_ended or (self.target is not None and self.reached >= self.target)

    def to_json(self) -> JsonObject:
        """What an event keeps of it, since its points may be replaced by those of a later one."""
        return {
            "from_iteration": self.from_iteration,
            "reached": self.reached,
            "target": self.target,
            "train_loss": self.train_loss,
            "best_validation_loss": self.best_validation_loss,
        }


@dataclass(kw_only=True)
class Story:
    """What a log tells. `begins` is its first line with a number, `settings` are those said of the last training."""

    begins: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    settings: JsonObject = field(default_factory=dict)
    reports: int = 0
    validations: int = 0


def is_text(path: Path) -> bool:
    """Whether a file begins like a log and not like a database or an archive, in which lines of a log may stand too."""
    with path.open("rb") as file:
        return b"\0" not in file.read(_BEGINNING)


def has_points(path: Path) -> bool:
    """Whether a file is a log of mlx-lm with at least one number in it."""
    return is_text(path) and any(isinstance(said, Point) for _, said in mlx_lm_log.read(path))


def read(path: Path, points: Points, progress: Callable[[int], None]) -> Story:
    """Read a log through and gather its points; those that a later training of the log goes over again are replaced."""
    reader = _Reader(points)
    for text, said in mlx_lm_log.read(path, progress):
        match said:
            case Point():
                reader.point(text, said)
            case Begins():
                reader.begin(said)
            case Reached():
                reader.reach(said)
    return reader.story


class _Reader:
    def __init__(self, points: Points) -> None:
        self.story = Story()
        self._points = points
        self._beginning: Begins | None = None
        self._last: dict[bool, tuple[int, str]] = {}
        self._seconds = 0.0
        self._reported = 0
        self._tokens = 0.0

    def begin(self, said: Begins) -> None:
        """A training announces itself; its first point makes the attempt."""
        before = self._beginning or Begins()
        self._beginning = Begins(
            target=said.target or before.target,
            settings={**before.settings, **said.settings},
            adapter=said.adapter or before.adapter,
        )

    def reach(self, said: Reached) -> None:
        """Something is done for certain."""
        if self._beginning is not None or not self.story.attempts:
            if said.target is not None:
                self.begin(Begins(target=said.target))
            return
        attempt = self.story.attempts[-1]
        attempt.reached = max(attempt.reached, said.iteration or 0)
        attempt.target = said.target or attempt.target
        attempt.is_ended = attempt.is_ended or said.is_end

    def point(self, text: str, point: Point) -> None:
        """A line with numbers; one that stands there twice counts once."""
        kind = point.is_validation
        if self._beginning is None and self._last.get(kind) == (point.iteration, text):
            return
        if self._beginning is not None or not self.story.attempts or self._falls_back(point):
            self._new_attempt(point)
        story, attempt = self.story, self.story.attempts[-1]
        story.begins = story.begins or text
        self._last[kind] = (point.iteration, text)
        attempt.firsts.setdefault(kind, point.iteration)
        attempt.reached = max(attempt.reached, point.iteration)
        self._count(attempt, point)
        self._points.add(point.iteration, round(self._seconds * 1000), point.metrics)

    def _falls_back(self, point: Point) -> bool:
        newest = max(iteration for iteration, _ in self._last.values())
        known = self._last.get(point.is_validation)
        return point.iteration < newest or (known is not None and known[0] == point.iteration)

    def _new_attempt(self, point: Point) -> None:
        beginning, attempts = self._beginning, self.story.attempts
        begun = 0
        if attempts and beginning is None:
            # mlx-lm counts every training from 1; numbers that fall back less far are another program's, which resumes
            first = attempts[-1].firsts.get(point.is_validation, 0)
            begun = 0 if point.iteration <= first else point.iteration - 1
        if attempts:
            self._points.forget(beyond=begun)
        beginning = beginning or Begins()
        self.story.settings = beginning.settings or self.story.settings
        self.story.attempts.append(
            Attempt(from_iteration=begun, adapter=beginning.adapter, target=beginning.target, reached=begun)
        )
        self._beginning, self._last = None, {}
        self._reported, self._tokens = begun, 0.0

    def _count(self, attempt: Attempt, point: Point) -> None:
        seconds = point.seconds if point.is_validation else self._seconds_of(point)
        if seconds is not None and 0 < seconds < _LONGEST:
            self._seconds = min(self._seconds + seconds, _LONGEST)
            attempt.seconds = min(attempt.seconds + seconds, _LONGEST)
        if point.is_validation:
            self.story.validations += 1
            loss, best = point.metrics["validation_loss"], attempt.best_validation_loss
            if math.isfinite(loss) and (best is None or loss < best):
                attempt.best_validation_loss = loss
            return
        self.story.reports += 1
        attempt.train_loss = point.metrics["train_loss"]
        self._reported = point.iteration
        self._tokens = point.metrics.get("trained_tokens", self._tokens)
        attempt.trained_tokens = int(self._tokens)

    def _seconds_of(self, point: Point) -> float | None:
        """What the iterations since the last report took, by the rate that this one has."""
        iterations = point.metrics.get("iterations_per_second")
        if iterations:
            return (point.iteration - self._reported) / iterations
        tokens = point.metrics.get("tokens_per_second")
        if tokens and "trained_tokens" in point.metrics:
            return max(0.0, point.metrics["trained_tokens"] - self._tokens) / tokens
        return None
