"""Two models on the same rows: how far their scores are apart, how sure that is, and which rows became better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlxops.evaluation.measures import Measure

CONFIDENCE = 0.95
RESAMPLES = 10_000

_AT_ONCE = 1 << 21  # entries of a block of resamples
_MOST = 1 << 28  # entries of all of them: more rows are resampled less often


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A metric of a tuned model less that of its base, with the bounds of a 95 % confidence interval.

    `sure` is whether the interval leaves out 0. `improved`, `worsened` and `same` name rows, those that changed most
    first; what changed within the measure's tolerance is the same. None where there is nothing to say.
    """

    metric: str
    difference: float | None
    low: float | None
    high: float | None
    improved: tuple[str, ...]
    worsened: tuple[str, ...]
    same: tuple[str, ...]

    @property
    def sure(self) -> bool:
        """Whether chance hardly explains the difference."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def compare(base: Measure, tuned: Measure, *, seed: int = 0, resamples: int = RESAMPLES) -> Compared:
    """Compare a metric of two models over the same rows, by the paired percentile bootstrap.

    Rows are drawn with replacement, the same rows for both models, so that what makes a row hard cancels out. The same
    seed gives the same bounds.
    """
    if list(base.rows) != list(tuned.rows) or base.metric != tuned.metric:
        raise ValueError("only one metric of the same rows can be compared")
    both = (base.weights > 0) & (tuned.weights > 0)
    difference = low = high = math.nan
    if both.any():
        ones = np.ones((1, int(both.sum())))
        ((difference,),) = [_differences(base, tuned, both, ones)]
    if both.sum() > 1 and math.isfinite(difference):
        count = int(both.sum())
        rounds = max(min(resamples, _MOST // count), 200)
        found = np.concatenate([_differences(base, tuned, both, draws) for draws in _draws(count, rounds, seed)])
        low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    improved, worsened, same = _by_row(base, tuned, both)
    return Compared(
        metric=base.metric,
        difference=_finite(difference),
        low=_finite(low),
        high=_finite(high),
        improved=improved,
        worsened=worsened,
        same=same,
    )


def _draws(count: int, rounds: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, in blocks of resamples."""
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(_AT_ONCE // count, 1)
    for start in range(0, rounds, block):
        size = min(block, rounds - start)
        drawn = generator.integers(count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _differences(base: Measure, tuned: Measure, both: np.ndarray, draws: np.ndarray) -> np.ndarray:
    def scores(measure: Measure) -> np.ndarray:
        return measure.of_sums(draws @ measure.values[both], draws @ measure.weights[both])

    return scores(tuned) - scores(base)


def _by_row(
    base: Measure, tuned: Measure, both: np.ndarray
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The rows that became better, became worse, and stayed."""
    if base.better is None:
        return (), (), ()
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = tuned.values / tuned.weights - base.values / base.weights
    if base.better == "lower":
        gain = -gain
    places = [int(place) for place in np.flatnonzero(both) if not math.isnan(gain[place])]
    ranked = sorted(places, key=lambda place: -abs(gain[place]))
    return (
        tuple(base.rows[place] for place in ranked if gain[place] > base.tolerance),
        tuple(base.rows[place] for place in ranked if gain[place] < -base.tolerance),
        tuple(base.rows[place] for place in places if abs(gain[place]) <= base.tolerance),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
