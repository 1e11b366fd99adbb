"""What questions cost: each saved query on 1,000 runs with many points, and how soon hostile SQL is given up.

python benchmarks/sql.py [--points 10000000]

Prints a line for each, in medians, and ends with 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mlxops import registry
from mlxops.errors import Failed

sys.path.insert(0, str(Path(__file__).resolve().parent))
from registry import RUNS, fill  # type: ignore[import-not-found]

SAVED_BOUND = 100.0  # milliseconds of a saved query
STOP_BOUND = 1200.0  # milliseconds until a query is left that was given 200
GIVEN = {"one": "run-1", "other": "run-2", "loss": 1.0}

_ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_LONG = "replace(hex(zeroblob(4000000)), '0', 'a')"
HOSTILE = {
    "rows without end": f"{_ENDLESS} SELECT count(*) FROM n",
    "all points with each other": "SELECT count(*) FROM metrics AS a, metrics AS b WHERE a.value < b.value",
    "one call that takes hours": f"SELECT instr({_LONG}, substr({_LONG}, 1, 4000000) || 'b')",
}


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000_000, help="points of the registry")
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        fill(path, 100, points // 1000)
        print(f"{RUNS:,} runs, {points:,} points")
        figures = [(f"@{each.name}", saved(path, each), SAVED_BOUND) for each in registry.saved_queries()]
        figures += [(name, stopped(path, sql), STOP_BOUND) for name, sql in HOSTILE.items()]
    for what, measured, bound in figures:
        print(f"{what:30} {measured:10,.1f} ms (bound {bound:,g}) {'' if measured <= bound else 'MISSED'}")
    return int(any(measured > bound for _, measured, bound in figures))


def saved(path: Path, query: registry.SavedQuery, repeats: int = 5) -> float:
    """The median of a few askings, opening included, in milliseconds."""
    given = dict.fromkeys(query.parameters) | {name: GIVEN[name] for name in query.parameters if name in GIVEN}
    return statistics.median(milliseconds(path, query.sql, given) for _ in range(repeats))


def stopped(path: Path, sql: str) -> float:
    """How long it takes until a query that was given 200 ms is left."""
    begun = time.perf_counter()
    try:
        registry.query(path, sql, timeout=0.2)
    except Failed:
        return (time.perf_counter() - begun) * 1e3
    raise SystemExit(f"it ended by itself: {sql}")


def milliseconds(path: Path, sql: str, given: dict[str, object]) -> float:
    """How long a query takes."""
    begun = time.perf_counter()
    registry.query(path, sql, given)
    return (time.perf_counter() - begun) * 1e3


if __name__ == "__main__":
    sys.exit(main())
