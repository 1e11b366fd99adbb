"""Metrics of other packages, by the entry point group `mlxops.metrics`.

    [project.entry-points."mlxops.metrics"]
    politeness = "my_package:politeness"

    def politeness(*, prompt: str, expected: str, answer: str) -> float | None: ...

A metric gives one number per answer, or None where it says nothing of it. Its attribute `better` is "higher" (as it is
without one), "lower", or None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from mlxops.errors import BadRequest, Failed
from mlxops.evaluation.answers import GivenAnswer
from mlxops.evaluation.measures import Better
from mlxops.foreign import foreign_code

GROUP = "mlxops.metrics"


class Metric(Protocol):
    """What an entry point names."""

    def __call__(self, *, prompt: str, expected: str, answer: str) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A loaded metric of another package."""

    name: str
    better: Better | None
    metric: Metric

    def score(self, answer: GivenAnswer) -> float | None:
        """The metric of one answer; None for what is not finite. Raises `Failed` where its code fails."""

        def failed(words: str, _: BaseException) -> Failed:
            return Failed(
                f"the metric {self.name!r} fails on {answer.origin}: {words}", hint="leave it out of `--metrics`"
            )

        with foreign_code(failed):
            value = self.metric(prompt=answer.prompt, expected=answer.expected, answer=answer.text)
            number = None if value is None else float(value)
        return number if number is not None and math.isfinite(number) else None


def names() -> list[str]:
    """The metrics that are installed."""
    return sorted({each.name for each in entry_points(group=GROUP)})


def load(wanted: Iterable[str]) -> list[Plugin]:
    """The installed metrics of these names. Raises `BadRequest` for one that cannot be loaded."""
    return [_load(name) for name in wanted]


def _load(name: str) -> Plugin:
    def failed(words: str, _: BaseException) -> BadRequest:
        return BadRequest(f"the metric {name!r} cannot be loaded: {words}", hint="mend its package, or leave it out")

    with foreign_code(failed):
        metric: Any = next(iter(entry_points(group=GROUP, name=name))).load()
    better: Any = getattr(metric, "better", "higher")
    if not callable(metric) or better not in ("higher", "lower", None):
        raise BadRequest(
            f"{name!r} of the entry points {GROUP!r} is no metric",
            hint="it takes prompt, expected and answer, and its `better` is 'higher', 'lower' or None",
        )
    return Plugin(name=name, better=better, metric=metric)


def better_of(plugins: Iterable[Plugin]) -> Mapping[str, Better | None]:
    """Which direction is better, by the name of the metric."""
    return {each.name: each.better for each in plugins}
