"""A measure: one value and one weight per row, whose ratio of sums is the score.

Every score is of this form, so that all share one standard error and one comparison: a mean over rows has weights of 1,
a loss the tokens of a row, bits per byte its bytes; a perplexity is the exponential of a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Better = Literal["lower", "higher"]

Ratio = Callable[[np.ndarray, np.ndarray], tuple[float, float]]
"""The ratio of the sums of values and weights over rows, and its standard error; the error of one row is 0."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric over rows: `values` and `weights` are float64 arrays with one entry per row, in the order of `rows`.

    A row of weight 0 has no value. `better` None says of neither direction that it is better. `tolerance` is the
    change of a row's value over its weight up to which it counts as the same.
    """

    metric: str
    better: Better | None
    rows: Sequence[str]
    values: np.ndarray
    weights: np.ndarray
    is_exponential: bool = False
    tolerance: float = 0.0

    def of_sums(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The score of summed values and weights, for as many sums as there are; NaN where there is no weight."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = values / weights
            return np.exp(ratio) if self.is_exponential else ratio


@dataclass(frozen=True, kw_only=True)
class MeasuredScore:
    """The score of a metric over `rows` rows. None stands for what is not finite, or cannot be known of one row."""

    metric: str
    better: Better | None
    value: float | None
    standard_error: float | None
    rows: int


def score(measure: Measure, ratio: Ratio) -> MeasuredScore:
    """The score of a measure with its standard error; that of an exponential is to first order."""
    counted = measure.weights > 0
    rows = int(counted.sum())
    value = error = math.nan
    if rows:
        value, error = ratio(measure.values[counted], measure.weights[counted])
    if measure.is_exponential:
        value = math.exp(value) if value < 700 else math.inf
        error *= value
    return MeasuredScore(
        metric=measure.metric,
        better=measure.better,
        value=value if math.isfinite(value) else None,
        standard_error=error if rows > 1 and math.isfinite(error) else None,
        rows=rows,
    )
