"""Where a noisy curve is heading, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

WINDOW = 60
"""The newest reports that a trend is taken from."""

_FEWEST = 8  # below this the interval is as wide as all the slopes there are
_QUANTILE = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Trend:
    """The change an iteration, its 95 % interval, and the points it was estimated from."""

    slope: float
    lowest: float
    highest: float
    points: int
    first_iteration: int
    last_iteration: int

    @property
    def direction(self) -> str:
        """A direction only where the interval leaves one."""
        return "falling" if self.highest < 0 else "rising" if self.lowest > 0 else "no clear trend"


def trend(points: Sequence[tuple[int, float]]) -> Trend | None:
    """The trend of (iteration, value) points, None where there are too few.

    The slope is the median of the slopes between all pairs (Theil 1950), which a few spikes cannot turn; the interval
    is the one of Sen (J. Am. Stat. Assoc. 63, 1968), from the ranks of these slopes and the variance of Kendall's S.
    It takes the points for independent, which the means of reports over different batches nearly are.
    """
    count = len(points)
    if count < _FEWEST:
        return None
    slopes = sorted((after[1] - before[1]) / (after[0] - before[0]) for before, after in combinations(points, 2))
    spread = _QUANTILE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    lowest = max(math.floor((len(slopes) - spread) / 2), 0)
    return Trend(
        slope=statistics.median(slopes),
        lowest=slopes[lowest],
        highest=slopes[-1 - lowest],
        points=count,
        first_iteration=points[0][0],
        last_iteration=points[-1][0],
    )
