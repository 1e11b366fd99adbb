"""Reading points: whole curves, curves thinned to what a screen can show, and the newest values."""

from __future__ import annotations

from typing import Literal, TypedDict

from mlxops.registry.database import Registry
from mlxops.registry.rows import SeriesRow


class MetricPoint(TypedDict):
    """A point of a curve; `value` is None where it was not finite."""

    iteration: int
    value: float | None
    elapsed_seconds: float


class LossPoint(TypedDict):
    """The losses of one iteration; None where there is none, or it was not finite."""

    iteration: int
    train_loss: float | None
    validation_loss: float | None
    validation_standard_error: float | None


class NamedSeries(SeriesRow):
    """The summary of a curve with the name of its metric."""

    name: str


_ALL = """
    SELECT iteration, value, elapsed_ms / 1000.0 AS elapsed_seconds
    FROM metrics
    WHERE run_id = :run AND name_id = :name
    ORDER BY iteration
"""

# Ranges of the key instead of GROUP BY, which would sort every point. Beside min() or max() a bare column comes from
# the row that has it, so each range gives the iterations of its two extremes, and spikes survive.
_THINNED = """
    WITH RECURSIVE
    bucket (low, high) AS (
        SELECT :first, :first + :width
        UNION ALL
        SELECT high, high + :width FROM bucket WHERE high <= :last
    ),
    kept (iteration) AS (
        SELECT (SELECT iteration FROM (SELECT iteration, min(value) FROM metrics
            WHERE run_id = :run AND name_id = :name AND iteration >= low AND iteration < high)) FROM bucket
        UNION
        SELECT (SELECT iteration FROM (SELECT iteration, max(value) FROM metrics
            WHERE run_id = :run AND name_id = :name AND iteration >= low AND iteration < high)) FROM bucket
        UNION
        SELECT :first
        UNION
        SELECT :last
    )
    SELECT metrics.iteration, metrics.value, metrics.elapsed_ms / 1000.0 AS elapsed_seconds
    FROM kept
    CROSS JOIN metrics
        ON metrics.run_id = :run AND metrics.name_id = :name AND metrics.iteration = kept.iteration
    ORDER BY metrics.iteration
"""


def metric_series(db: Registry, run_id: int, name: str, buckets: int | None = None) -> list[MetricPoint]:
    """The points of one curve.

    With `buckets`, a longer curve is thinned to the lowest and the highest point of that many equal ranges, and its
    first and last point.
    """
    found = db.rows(
        """
        SELECT name_id AS name, count, first_iteration AS first, last_iteration AS last
        FROM series
        WHERE run_id = ? AND name_id = (SELECT id FROM metric_names WHERE name = ?)
        """,
        (run_id, name),
    )
    if not found:
        return []
    (curve,) = found
    if buckets is None or curve["count"] <= 2 * buckets:
        return db.rows(_ALL, {"run": run_id, "name": curve["name"]}, of=MetricPoint)
    width = max(1, -(-(curve["last"] - curve["first"] + 1) // buckets))
    return db.rows(
        _THINNED,
        {"run": run_id, "name": curve["name"], "first": curve["first"], "last": curve["last"], "width": width},
        of=MetricPoint,
    )


def loss_curve(db: Registry, run_id: int, buckets: int | None = None) -> list[LossPoint]:
    """The losses by iteration; each curve is thinned by itself."""
    rows: dict[int, LossPoint] = {}
    names: tuple[Literal["train_loss"], Literal["validation_loss"]] = ("train_loss", "validation_loss")
    for name in names:
        for point in metric_series(db, run_id, name, buckets):
            row = rows.setdefault(
                point["iteration"],
                {
                    "iteration": point["iteration"],
                    "train_loss": None,
                    "validation_loss": None,
                    "validation_standard_error": None,
                },
            )
            row[name] = point["value"]
    for point in metric_series(db, run_id, "validation_standard_error"):
        if point["iteration"] in rows and rows[point["iteration"]]["validation_loss"] is not None:
            rows[point["iteration"]]["validation_standard_error"] = point["value"]
    return [rows[iteration] for iteration in sorted(rows)]


def latest_metrics(db: Registry, run_id: int) -> dict[str, float | None]:
    """The newest value of every curve of a run, by name; None where it was not finite."""
    return {
        row["name"]: row["last_value"]
        for row in db.rows(
            """
            SELECT name, last_value
            FROM series CROSS JOIN metric_names ON metric_names.id = name_id
            WHERE run_id = ?
            ORDER BY metric_names.id
            """,
            (run_id,),
        )
    }


def curve_summary(db: Registry, run_id: int) -> dict[str, NamedSeries]:
    """The row of `series` of each of a run's curves, by the name of the curve."""
    return {
        row["name"]: row
        for row in db.rows(
            """
            SELECT metric_names.name, series.*
            FROM series
            CROSS JOIN metric_names ON metric_names.id = series.name_id
            WHERE series.run_id = ?
            """,
            (run_id,),
            of=NamedSeries,
        )
    }
