"""What a monitor asks again and again: small questions whose cost does not grow with the number of points."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypedDict

from mlxops.errors import Failed
from mlxops.registry.attempts import close_dead_attempts
from mlxops.registry.database import Registry, sync_as_promised
from mlxops.registry.processes import is_proven_dead, is_this_machine, process_start
from mlxops.registry.rows import AttemptRow
from mlxops.registry.views import RunSummaryView

_AT_WORK = """
    SELECT id, run_id, host, boot_id, pid, process_started,
        heartbeat_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-60 seconds') AS is_beating
    FROM attempts
    WHERE ended_at IS NULL
"""


class RunOverview(TypedDict):
    """The least there is to say of a run; `status` may be `lost`."""

    id: int
    name: str
    created_at: str
    status: str


class DiskTotal(TypedDict):
    """What the view `disk_use` says of all runs together."""

    runs: int
    checkpoints: int
    bytes: int


class AttemptAtWork(TypedDict):
    """An attempt that has not ended: what names its process, whether it beats, and whether it is proven dead."""

    id: int
    run_id: int
    host: str
    boot_id: str | None
    pid: int
    process_started: str | None
    is_beating: int
    is_dead: bool


@contextmanager
def one_moment(db: Registry) -> Iterator[None]:
    """All that is read inside is of one moment; short, since a reader makes the log grow."""
    db.connection.execute("BEGIN")
    try:
        yield
    finally:
        if db.connection.in_transaction:
            db.connection.execute("ROLLBACK")


def try_to_close_dead_attempts(path: Path, patience: float) -> bool:
    """Close the attempts whose process is proven dead, where nobody else writes for longer than so many seconds.

    Whether they are closed now. A watcher that cannot wait shows them as lost and tries again.
    """
    try:
        address = path.resolve().as_uri() + "?mode=rw"  # none is made where it has just been moved away
        with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)) as connection:
            sync_as_promised(connection)
            close_dead_attempts(Registry(path, connection))
    except (Failed, sqlite3.OperationalError):
        return False
    return True


def overview(db: Registry) -> list[RunOverview]:
    """Every run, the newest first."""
    # only a run that is said to be running can be lost: to ask the view for each of 1,000 takes ten times as long
    return db.rows(
        """
        SELECT
            id,
            name,
            created_at,
            iif(status = 'running', (SELECT status FROM run_summary WHERE run_summary.id = runs.id), status) AS status
        FROM runs
        ORDER BY id DESC
        """,
        of=RunOverview,
    )


def summary_of(db: Registry, run_id: int) -> RunSummaryView:
    """The row of `run_summary` of a run that is there."""
    (row,) = db.rows("SELECT * FROM run_summary WHERE id = ?", (run_id,), of=RunSummaryView)
    return row


def disk_total(db: Registry) -> DiskTotal:
    """How many runs have checkpoints on disk, how many those are, and what they take."""
    (row,) = db.rows(
        """
        SELECT count(*) AS runs, coalesce(sum(checkpoints), 0) AS checkpoints, coalesce(sum(bytes), 0) AS bytes
        FROM disk_use
        WHERE checkpoints > 0
        """,
        of=DiskTotal,
    )
    return row


def attempts_at_work(db: Registry) -> list[AttemptAtWork]:
    """The attempts that have not ended."""
    rows = db.rows(_AT_WORK, of=AttemptAtWork)
    for row in rows:
        row["is_dead"] = is_proven_dead(row["host"], row["boot_id"], row["pid"], row["process_started"])
    return rows


def process_of(attempt: AttemptRow) -> int | None:
    """The process of an attempt that is at work on this machine, None where there is none to look at."""
    if attempt["ended_at"] is not None or not is_this_machine(attempt["host"], attempt["boot_id"]):
        return None
    started = process_start(attempt["pid"])
    return attempt["pid"] if started is not None and started == attempt["process_started"] else None


def last_points(db: Registry, run_id: int, name: str, count: int) -> list[tuple[int, float]]:
    """The iteration and value of the newest finite points of a curve, from old to new."""
    rows = db.rows(
        """
        SELECT iteration, value
        FROM metrics
        WHERE run_id = ? AND name_id = (SELECT id FROM metric_names WHERE name = ?) AND value IS NOT NULL
        ORDER BY iteration DESC
        LIMIT ?
        """,
        (run_id, name, count),
    )
    return [(row["iteration"], row["value"]) for row in reversed(rows)]


def warned_at(db: Registry, run_id: int, since: int, last: int, columns: int) -> list[int]:
    """The first iteration with a warning or an error in each of so many equal parts of the iterations shown."""
    rows = db.rows(
        """
        SELECT min(iteration) AS iteration
        FROM events
        WHERE run_id = :run AND iteration BETWEEN :since AND :last AND level <> 'info'
        GROUP BY (iteration - :since) * :columns / (:last - :since + 1)
        """,
        {"run": run_id, "since": since, "last": last, "columns": columns},
    )
    return [row["iteration"] for row in rows]


def time_of_best(db: Registry, run_id: int) -> str | None:
    """When the best validation loss of a run was measured, None where it has none."""
    rows = db.rows(
        """
        SELECT
            strftime(
                '%Y-%m-%dT%H:%M:%fZ',
                julianday(runs.created_at) + coalesce(metrics.elapsed_ms, checkpoints.closing_elapsed_ms) / 86400000.0
            ) AS time
        FROM runs
        LEFT JOIN metrics
            ON metrics.run_id = runs.id
            AND metrics.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
            AND metrics.iteration = runs.best_iteration
        LEFT JOIN checkpoints ON checkpoints.run_id = runs.id AND checkpoints.iteration = runs.best_iteration
        WHERE runs.id = ?
        """,
        (run_id,),
    )
    return rows[0]["time"] if rows else None
