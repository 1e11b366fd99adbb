"""A curve as a few hundred ranges that hide nothing: each with its mean, its lowest and its highest point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypedDict

from mlxops.registry.database import Registry


class Range(TypedDict):
    """Neighbouring points: how many, how many of them finite, their mean place and value, the lowest and the highest.

    Without a finite value mean, low and high are None.
    """

    iteration: float
    mean: float | None
    low: float | None
    low_iteration: int
    high: float | None
    high_iteration: int
    finite: int
    count: int


# Ranges of the key instead of GROUP BY, which would sort every point. Beside min() or max() a bare column comes from
# the row that has it; a subquery gives one value, so what one pass over a range finds comes out as one JSON array.
_RANGES = """
    WITH RECURSIVE bucket (low, high) AS (
        SELECT :first, :first + :width
        UNION ALL
        SELECT high, high + :width FROM bucket WHERE high <= :last
    )
    SELECT
        (SELECT json_array(iteration, min(value), avg(value), count(value), count(*), avg(iteration)) FROM metrics
            WHERE run_id = :run AND name_id = :name AND iteration >= low AND iteration < high) AS lowest,
        (SELECT json_array(iteration, max(value)) FROM metrics
            WHERE run_id = :run AND name_id = :name AND iteration >= low AND iteration < high) AS highest
    FROM bucket
"""

_SERIES = """
    SELECT name_id AS name, first_iteration AS first, last_iteration AS last
    FROM series
    WHERE run_id = ? AND name_id = (SELECT id FROM metric_names WHERE name = ?)
"""


class Ranges:
    """A curve in at most so many ranges; read again, it asks only for what has come since.

    Points that are taken away (an attempt that begins where there were points) are not noticed: take a new one then.
    """

    def __init__(self, run_id: int, name: str, ranges: int) -> None:
        self._run_id = run_id
        self._name = name
        self._ranges = ranges
        self._since = 0
        self._width = 1
        self._read: list[Range] = []

    def read(self, db: Registry, since: int = 0) -> list[Range]:
        """Rows of iteration (the mean one), mean, low, low_iteration, high, high_iteration, finite and count.

        They begin with the range that holds the iteration `since`; where it goes back, the curve is read again. Ranges
        without a point are left out; in one without a finite value mean, low and high are None.
        """
        if since < self._since:
            self._width, self._read = 1, []
        self._since = since
        found = db.rows(_SERIES, (self._run_id, self._name))
        if not found or found[0]["last"] < since:
            return []
        (curve,) = found
        first = max(curve["first"], since)
        while curve["last"] // self._width - first // self._width >= self._ranges:
            self._widen()
        self._read = [each for each in self._read if each["low_iteration"] // self._width >= first // self._width]
        # the last range may have had room for more
        begin = self._read.pop()["low_iteration"] if self._read else first
        limits = {"first": begin // self._width * self._width, "last": curve["last"], "width": self._width}
        for row in db.rows(_RANGES, {"run": self._run_id, "name": curve["name"], **limits}):
            self._add(json.loads(row["lowest"]), json.loads(row["highest"]))
        return list(self._read)

    def _add(self, lowest: Sequence[Any], highest: Sequence[Any]) -> None:
        low_iteration, low, mean, finite, count, iteration = lowest
        high_iteration, high = highest
        if count:
            self._read.append(
                {
                    "iteration": iteration,
                    "mean": mean,
                    "low": low,
                    "low_iteration": low_iteration,
                    "high": high,
                    "high_iteration": high_iteration,
                    "finite": finite,
                    "count": count,
                }
            )

    def _widen(self) -> None:
        self._width *= 2
        self._read = [
            merged(list(together))
            for _, together in groupby(self._read, key=lambda each: each["low_iteration"] // self._width)
        ]


def merged(ranges: Sequence[Range]) -> Range:
    """Neighbouring ranges as one."""
    finite = [each for each in ranges if each["finite"]]
    count, total = sum(each["count"] for each in ranges), sum(each["finite"] for each in ranges)
    low = min(finite, key=lambda each: each["low"] or 0.0, default=ranges[0])
    high = max(finite, key=lambda each: each["high"] or 0.0, default=ranges[0])
    return {
        "iteration": sum(each["iteration"] * each["count"] for each in ranges) / count,
        "mean": sum((each["mean"] or 0.0) * each["finite"] for each in finite) / total if total else None,
        "low": low["low"],
        "low_iteration": low["low_iteration"],
        "high": high["high"],
        "high_iteration": high["high_iteration"],
        "finite": total,
        "count": count,
    }
