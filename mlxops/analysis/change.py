"""Whether two series of measurements differ by more than chance, and by how much."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from statistics import fmean

_MOST = 20_000  # ways to share out the values that are all tried


@dataclass(frozen=True, kw_only=True)
class Change:
    """How far the mean moved, as a share of the mean before, and how often chance alone moves it as far."""

    share: float
    probability: float

    @property
    def is_significant(self) -> bool:
        """Whether chance moves it as far less than once in twenty times."""
        return self.probability < 0.05


def change(before: Sequence[float], now: Sequence[float]) -> Change | None:
    """The change between two series; None where one is empty or the mean before is 0.

    A permutation test (Fisher 1935): of all ways to share out the values to two series of these lengths, how many have
    means at least as far apart. Where there are more than 20,000 ways, as many are drawn, always the same.

    >>> change([10.0, 11.0, 12.0, 11.0], [20.0, 21.0, 22.0, 21.0]).is_significant
    True
    >>> change([10.0, 20.0, 15.0], [15.0, 11.0, 19.0]).is_significant
    False
    """
    if not before or not now or fmean(before) == 0:
        return None
    values = [*before, *now]
    total, count = sum(values), len(now)
    seen = abs(fmean(now) - fmean(before))
    ways = comb(len(values), count)
    if ways <= _MOST:
        chosen = [sum(each) for each in combinations(values, count)]
    else:
        drawn = random.Random(0)
        chosen = [sum(now), *(sum(drawn.sample(values, count)) for _ in range(_MOST))]
    apart = [abs(part / count - (total - part) / len(before)) for part in chosen]
    as_far = sum(each >= seen * (1 - 1e-9) for each in apart)
    return Change(share=fmean(now) / fmean(before) - 1, probability=as_far / len(apart))
