"""Laying curves over each other: where a point stands by iterations, tokens or time, and what lies between points."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

Curve = list[tuple[float, float | None]]
"""Points by their place, ascending; None where the value was not finite."""


def axis(
    by: str, tokens: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]], created_at: str
) -> Callable[[Mapping[str, Any]], float]:
    """The place of a point (`iteration`, `elapsed_seconds`) of a run: by its iterations, tokens or time.

    `tokens` are the points of trained_tokens, between which the straight line counts. Time is that at work: the
    pauses between `attempts` are left out. Without attempts no pause is known, and all time counts.
    """
    if by == "tokens":
        line: Curve = [(0.0, 0.0), *((point["iteration"], point["value"]) for point in tokens)]
        return lambda point: _on(line, point["iteration"])
    if by == "time" and attempts:
        spans = _spans(attempts, created_at)
        return lambda point: _at_work(spans, point["elapsed_seconds"])
    if by == "time":
        return lambda point: float(point["elapsed_seconds"])
    return lambda point: float(point["iteration"])


def common_places(curves: Sequence[Curve], count: int, *, whole: bool) -> list[float]:
    """At most so many places, evenly spread over what all curves with points cover; none where they share nothing.

    `whole` takes only whole numbers, as iterations and tokens are.

    >>> common_places([[(0, 4.0), (12, 3.0)], [(2, 4.0), (10, 3.0)]], 3, whole=True)
    [2, 6, 10]
    """
    drawn = [curve for curve in curves if curve]
    if not drawn:
        return []
    first, last = max(curve[0][0] for curve in drawn), min(curve[-1][0] for curve in drawn)
    if whole:
        first, last = math.ceil(first), math.floor(last)
    if first > last:
        return []
    places = [first + (last - first) * number / (count - 1) for number in range(count)]
    return sorted({round(place) if whole else place for place in places})


def spread(places: Sequence[int], count: int) -> list[int]:
    """At most so many of the places, spread evenly over their list, the first and the last among them.

    >>> spread([0, 20, 40, 60, 80, 100], 3), spread([5], 3)
    ([0, 60, 100], [5])
    """
    if len(places) <= count:
        return list(places)
    return [places[-(-number * (len(places) - 1) // (count - 1))] for number in range(count)]


def value_at(curve: Curve, place: float) -> float | None:
    """The curve's value at a place: a point's own, or on the straight line between its neighbours.

    None outside the curve, and beside a point that was not finite.

    >>> value_at([(0, 4.0), (10, 2.0)], 5), value_at([(0, 4.0), (10, None)], 5), value_at([(0, 4.0)], 5)
    (3.0, None, None)
    """
    index = bisect_left(curve, place, key=lambda point: point[0])
    if index == len(curve):
        return None
    after, above = curve[index]
    if after == place:
        return above
    if index == 0:
        return None
    before, below = curve[index - 1]
    if below is None or above is None:
        return None
    return below + (above - below) * (place - before) / (after - before)


def _on(line: Curve, iteration: float) -> float:
    """The value of a line that only rises; beyond its end it continues as it did before."""
    value = value_at(line, iteration)
    if value is not None:
        return value
    (before, below), (last, reached) = line[-2:] if len(line) > 1 else [(0.0, 0.0), (1.0, 0.0)]
    rate = ((reached or 0.0) - (below or 0.0)) / ((last - before) or 1.0)
    return (reached or 0.0) + rate * (iteration - last)


def _spans(attempts: Sequence[Mapping[str, Any]], created_at: str) -> list[tuple[float, float]]:
    """When each attempt was at work, in seconds since the run was created; one still at work has no end."""
    created = datetime.fromisoformat(created_at)

    def since(text: str) -> float:
        return (datetime.fromisoformat(text) - created).total_seconds()

    # its heartbeat is older than the points it writes meanwhile
    return [(since(each["started_at"]), since(each["ended_at"]) if each["ended_at"] else math.inf) for each in attempts]


def _at_work(spans: Sequence[tuple[float, float]], elapsed: float) -> float:
    return sum(max(0.0, min(end, elapsed) - begin) for begin, end in spans)
