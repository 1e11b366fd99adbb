"""Writing points: the hot path. One transaction a report, prepared text, interned names, a summary row a curve."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from mlxops.errors import NotFound
from mlxops.registry.database import Registry

_POINT = """
    INSERT INTO metrics (run_id, name_id, iteration, value, elapsed_ms) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value, elapsed_ms = excluded.elapsed_ms
"""

# The WHERE leaves a curve alone when its point is not a new last one; the caller then reads that curve again.
_SUMMARY = """
    INSERT INTO series
    SELECT
        run_id, name_id, 1, value IS NULL, iteration, iteration, value, elapsed_ms,
        value, iif(value IS NULL, NULL, iteration), value, iif(value IS NULL, NULL, iteration)
    FROM (SELECT ? AS run_id, ? AS name_id, ? AS iteration, ? AS value, ? AS elapsed_ms)
    WHERE TRUE
    ON CONFLICT DO UPDATE SET
        count = count + 1,
        not_finite = not_finite + excluded.not_finite,
        last_iteration = excluded.last_iteration,
        last_value = excluded.last_value,
        last_elapsed_ms = excluded.last_elapsed_ms,
        min_iteration = iif(min_value IS NULL OR excluded.min_value < min_value, excluded.min_iteration, min_iteration),
        min_value = iif(min_value IS NULL OR excluded.min_value < min_value, excluded.min_value, min_value),
        max_iteration = iif(max_value IS NULL OR excluded.max_value > max_value, excluded.max_iteration, max_iteration),
        max_value = iif(max_value IS NULL OR excluded.max_value > max_value, excluded.max_value, max_value)
    WHERE excluded.last_iteration > last_iteration
"""

_REBUILD = """
    INSERT INTO series
    SELECT
        run_id, name_id, count(*), count(*) - count(value), min(iteration), max(iteration),
        (SELECT value FROM metrics WHERE run_id = :run AND name_id = :name ORDER BY iteration DESC LIMIT 1),
        (SELECT elapsed_ms FROM metrics WHERE run_id = :run AND name_id = :name ORDER BY iteration DESC LIMIT 1),
        min(value),
        (SELECT iteration FROM metrics WHERE run_id = :run AND name_id = :name AND value IS NOT NULL
            ORDER BY value, iteration LIMIT 1),
        max(value),
        (SELECT iteration FROM metrics WHERE run_id = :run AND name_id = :name AND value IS NOT NULL
            ORDER BY value DESC, iteration LIMIT 1)
    FROM metrics
    WHERE run_id = :run AND name_id = :name
    GROUP BY run_id, name_id
"""

_PROGRESS = """
    UPDATE runs
    SET iteration = :iteration, epoch = coalesce(:epoch, epoch),
        trained_tokens = coalesce(:trained_tokens, trained_tokens),
        updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    WHERE id = :run AND iteration <= :iteration
"""

_BEAT = """
    UPDATE attempts SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE id = ? AND ended_at IS NULL
"""

# of an extended run that has not finished again, the closing validation of its last target counts too
_BEST = """
    UPDATE runs
    SET (best_iteration, best_validation_loss) = (
        SELECT iteration, loss
        FROM (
            SELECT min_iteration AS iteration, min_value AS loss
            FROM series
            WHERE run_id = :run AND name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
            UNION ALL
            SELECT iteration, validation_loss
            FROM checkpoints
            WHERE run_id = :run AND status = 'whole' AND closing_elapsed_ms IS NOT NULL
        )
        WHERE loss IS NOT NULL
        ORDER BY loss, iteration
        LIMIT 1
    )
    WHERE id = :run
"""


def record_report(
    db: Registry,
    run_id: int,
    attempt_id: int | None,
    *,
    iteration: int,
    epoch: int | None,
    trained_tokens: int,
    metrics: Mapping[str, float | None],
    at: float | None = None,
) -> None:
    """Store one report and how far the run is. A value that is not finite is stored as NULL and counted.

    `at` is when it was made, in seconds since 1970, now unless given.
    """
    with db.transaction() as connection:
        _add_points(db, run_id, iteration, metrics, at)
        record_progress(connection, run_id, iteration, epoch, trained_tokens)
        connection.execute(_BEAT, (attempt_id,))


def record_validation(
    db: Registry,
    run_id: int,
    attempt_id: int | None,
    *,
    iteration: int,
    loss: float | None,
    standard_error: float | None,
    metrics: Mapping[str, float | None] = MappingProxyType({}),
    at: float | None = None,
) -> None:
    """Store one validation, with other metrics of it by name, and keep the run's best. `at` as for a report."""
    losses = {"validation_loss": loss, "validation_standard_error": standard_error}
    with db.transaction() as connection:
        _add_points(db, run_id, iteration, {**metrics, **losses}, at)
        record_best(connection, run_id)
        record_progress(connection, run_id, iteration, None, None)
        connection.execute(_BEAT, (attempt_id,))


def record_progress(
    connection: sqlite3.Connection, run_id: int, iteration: int, epoch: int | None, trained_tokens: int | None
) -> None:
    """Set how far a run is, within the caller's transaction; never backwards."""
    values = {"run": run_id, "iteration": iteration, "epoch": epoch, "trained_tokens": trained_tokens}
    connection.execute(_PROGRESS, values)


def record_best(connection: sqlite3.Connection, run_id: int) -> None:
    """Keep a run's best as its validations have it, within the caller's transaction."""
    connection.execute(_BEST, {"run": run_id})


def forget_points(connection: sqlite3.Connection, run_id: int, *, beyond: int, at: Collection[str]) -> None:
    """Remove a run's points after the iteration `beyond`, and at it those named in `at` (all at 0).

    Works on the key of each curve, within the caller's transaction.
    """
    removed = []
    for name_id, name in connection.execute(
        """
        SELECT name_id, name FROM series JOIN metric_names ON metric_names.id = name_id
        WHERE run_id = ? AND last_iteration >= ?
        """,
        (run_id, beyond),
    ).fetchall():
        first = beyond if beyond == 0 or name in at else beyond + 1
        deleted = connection.execute(
            "DELETE FROM metrics WHERE run_id = ? AND name_id = ? AND iteration >= ?", (run_id, name_id, first)
        )
        if deleted.rowcount:
            removed.append(name_id)
    rebuild(connection, run_id, removed)
    record_best(connection, run_id)


def _add_points(
    db: Registry, run_id: int, iteration: int, metrics: Mapping[str, float | None], at: float | None
) -> None:
    elapsed_ms = _elapsed_ms(db, run_id, time.time() if at is None else at)
    points = [
        # float(): numpy's own numbers would be bound as blobs
        (run_id, db.name_ids.get(name) or intern(db, name), iteration, _finite(value), elapsed_ms)
        for name, value in metrics.items()
    ]
    connection = db.connection
    connection.executemany(_POINT, points)
    if connection.executemany(_SUMMARY, points).rowcount != len(points):
        rebuild(connection, run_id, [point[1] for point in points])


def _finite(value: float | None) -> float | None:
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None


def intern(db: Registry, name: str) -> int:
    """The id of a metric's name, which is added if it is new, within the caller's transaction."""
    db.connection.execute("INSERT INTO metric_names (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    found = db.connection.execute("SELECT id FROM metric_names WHERE name = ?", (name,)).fetchall()
    return db.name_ids.setdefault(name, found[0][0])


def _elapsed_ms(db: Registry, run_id: int, at: float) -> int:
    if run_id not in db.created_ms:
        found = db.connection.execute(
            "SELECT (julianday(created_at) - 2440587.5) * 86400000 FROM runs WHERE id = ?", (run_id,)
        ).fetchall()
        if not found:
            raise NotFound(f"no run has the id {run_id}", hint="`inv runs` shows the runs there are")
        db.created_ms[run_id] = found[0][0]
    return max(0, round(at * 1000 - db.created_ms[run_id]))


def rebuild(connection: sqlite3.Connection, run_id: int, name_ids: Iterable[int]) -> None:
    """Read these curves of a run again for their summary rows, within the caller's transaction."""
    keys = [{"run": run_id, "name": name_id} for name_id in name_ids]
    connection.executemany("DELETE FROM series WHERE run_id = :run AND name_id = :name", keys)
    connection.executemany(_REBUILD, keys)
