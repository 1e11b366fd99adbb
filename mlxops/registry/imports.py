"""Runs of other tools: points are gathered beside the registry, and what changed goes in as one transaction.

Importing the same source again brings its run up to date: rows are changed where they differ, and none is doubled.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mlxops import texts
from mlxops.errors import Refused
from mlxops.registry.checkpoints import mark_best
from mlxops.registry.database import Registry
from mlxops.registry.history import finite
from mlxops.registry.imported import (
    Imported,
    ImportedAttempt,
    ImportedCheckpoint,
    ImportedEvent,
    ImportedRun,
    ImportSource,
)
from mlxops.registry.metrics import intern, rebuild, record_best
from mlxops.registry.runs import check_is_free, id_of, to_json

_BATCH = 5_000  # points gathered before they are written down


class Points:
    """The points of a run while its source is read: in a table of this connection alone, however many they are."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[str, int, float | None, int]] = []
        connection.execute("DROP TABLE IF EXISTS temp.points")
        connection.execute(
            """
            CREATE TEMP TABLE points (
                name TEXT NOT NULL, iteration INTEGER NOT NULL, value REAL, elapsed_ms INTEGER NOT NULL,
                PRIMARY KEY (name, iteration)
            ) WITHOUT ROWID
            """
        )
        # it locks the registry for nobody: only the temporary table is written
        connection.execute("BEGIN")

    def add(self, iteration: int, elapsed_ms: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of one iteration, in place of what was there; one that is not finite becomes NULL."""
        self._waiting += [
            (name, iteration, value if math.isfinite(value) else None, elapsed_ms) for name, value in metrics.items()
        ]
        if len(self._waiting) >= _BATCH:
            self._write()

    def forget(self, *, beyond: int) -> None:
        """Take the points after an iteration away."""
        self._write()
        self._connection.execute("DELETE FROM temp.points WHERE iteration > ?", (beyond,))

    def close(self) -> None:
        """Write down what is waiting."""
        self._write()
        self._connection.execute("COMMIT")

    def _write(self) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO temp.points VALUES (?, ?, ?, ?)", self._waiting)
        self._waiting.clear()


@contextmanager
def gather_points(db: Registry) -> Iterator[Points]:
    """A place for the points of one source; they are gone when the block ends."""
    points = Points(db.connection)
    try:
        yield points
    finally:
        if db.connection.in_transaction:
            db.connection.execute("ROLLBACK")
        db.connection.execute("DROP TABLE IF EXISTS temp.points")


def imports_of(db: Registry) -> list[ImportSource]:
    """The imported runs, newest first."""
    return db.rows(
        """
        SELECT id, name, status, imported_from, config, iteration, target_iterations, trained_tokens, updated_at
        FROM runs
        WHERE imported_from IS NOT NULL
        ORDER BY id DESC
        """,
        of=ImportSource,
    )


def record_import(
    db: Registry,
    run: ImportedRun,
    *,
    is_same_source: Callable[[str], bool],
    attempts: Sequence[ImportedAttempt],
    checkpoints: Sequence[ImportedCheckpoint],
    unread: Sequence[int],
    offered: int | None,
    events: Sequence[ImportedEvent],
) -> Imported:
    """Make the run of a source, or bring it up to date, with the points gathered, in one transaction.

    `is_same_source` tells whether a source on record is this one. Tags, note and name of a run that is there stay, and
    so do checkpoints whose files are gone, as missing; those of the iterations `unread` stay as they are. Without any
    log now, what one told before stays. Raises `Refused` for a name that another run has.
    """
    with db.transaction(durable=True) as connection:
        known, is_log_gone = _known(db, run, is_same_source), False
        if known is None:
            run_id, name = _insert(db, run)
        else:
            run_id, name = known["id"], known["name"]
            if run.name is not None and run.name != name:
                raise Refused(
                    f"{run.source!r} is the run {name!r} already", hint="leave `--name` out, and what is new is added"
                )
            if is_log_gone := run.begins is None and _has_points(connection, run_id):
                run = _with_what_was_told(run, known)
            _update(connection, run_id, run)
        changed = {
            "attempts": 0 if is_log_gone else _put_attempts(connection, run_id, attempts),
            "points": 0 if is_log_gone else _put_points(db, run_id),
            "checkpoints": _put_checkpoints(connection, run_id, checkpoints, unread, offered),
        }
        record_best(connection, run_id)
        if known is None or any(changed.values()):
            connection.executemany(
                """
                INSERT INTO events (run_id, iteration, level, kind, message, detail)
                VALUES (:run, :iteration, :level, :kind, :message, :detail)
                """,
                [{**event, "run": run_id, "detail": to_json(finite(event["detail"]))} for event in events],
            )
    db.created_ms.pop(run_id, None)
    return Imported(
        run_id=run_id,
        name=name,
        is_new=known is None,
        is_log_gone=is_log_gone,
        status=run.status,
        iteration=run.iteration,
        changed=changed,
    )


def _known(db: Registry, run: ImportedRun, is_same_source: Callable[[str], bool]) -> ImportSource | None:
    """The run that was made of this source before, where it is still the same training, or is that again."""
    there = [row for row in imports_of(db) if is_same_source(row["imported_from"])]
    begun = [row["config"]["imported"]["begins"] for row in there]
    if run.begins is not None and run.begins in begun:
        return there[begun.index(run.begins)]
    # what has no first line may be any training, most likely the newest
    return there[0] if there and None in (begun[0], run.begins) else None


def _has_points(connection: sqlite3.Connection, run_id: int) -> bool:
    return bool(connection.execute("SELECT 1 FROM series WHERE run_id = ? LIMIT 1", (run_id,)).fetchall())


def _with_what_was_told(run: ImportedRun, known: ImportSource) -> ImportedRun:
    """A run whose log is gone, with what the log told; weights may have come further meanwhile."""
    is_further = run.iteration > known["iteration"]
    return replace(
        run,
        status=run.status if is_further else known["status"],
        config=known["config"],
        iteration=max(run.iteration, known["iteration"]),
        target_iterations=max(run.iteration, known["target_iterations"]),
        trained_tokens=known["trained_tokens"],
        ended_at=run.ended_at if is_further else known["updated_at"],
    )


def _insert(db: Registry, run: ImportedRun) -> tuple[int, str]:
    if run.name is not None:
        check_is_free(db, texts.check_name(run.name, texts.RUN))
    name = run.name or _free_name(db, run.short_name)
    inserted = db.tables["runs"].insert(
        {
            "name": name,
            "kind": run.kind,
            "status": run.status,
            "fingerprint": run.identity,
            "model": run.model,
            "model_identity": _named(run.model),
            "data": run.data,
            "data_identity": _named(run.data),
            "config": to_json(finite(run.config)),
            "target_iterations": run.target_iterations,
            "iteration": run.iteration,
            "trained_tokens": run.trained_tokens,
            "adapter_path": run.source,
            "imported_from": run.source,
            "created_at": run.created_at,
            "updated_at": run.ended_at,
        }
    )
    return int(inserted.last_pk), name


def _named(path: str) -> str:
    """Whose identity nobody knows is taken for the same where it has the same name."""
    return f"named {path}"


def _free_name(db: Registry, wanted: str) -> str:
    """The name of a folder or file made fit for a run, with a number behind it where a run has it."""
    name = "".join("-" if each in texts.RUN.without or not each.isprintable() else each for each in wanted)
    name = name.strip().lstrip(f"{texts.RUN.not_first} ").encode()[:190].decode("utf-8", "ignore").strip()
    if texts.why_unfit(name, texts.RUN):
        name = "imported"
    number, free = 2, name
    while id_of(db, free) is not None:
        free, number = f"{name}-{number}", number + 1
    return free


def _update(connection: sqlite3.Connection, run_id: int, run: ImportedRun) -> None:
    connection.execute(
        """
        UPDATE runs
        SET kind = ?, status = ?, model = ?, model_identity = ?, data = ?, data_identity = ?, config = ?,
            target_iterations = ?, iteration = ?, trained_tokens = ?, adapter_path = ?, imported_from = ?,
            updated_at = ?
        WHERE id = ?
        """,
        (
            run.kind,
            run.status,
            run.model,
            _named(run.model),
            run.data,
            _named(run.data),
            to_json(finite(run.config)),
            run.target_iterations,
            run.iteration,
            run.trained_tokens,
            run.source,
            run.source,
            run.ended_at,
            run_id,
        ),
    )


def _put_attempts(connection: sqlite3.Connection, run_id: int, attempts: Sequence[ImportedAttempt]) -> int:
    """Bring the attempts in line; when one began is kept, since what is guessed from a file's time moves with it."""
    gone = connection.execute("DELETE FROM attempts WHERE run_id = ? AND number > ?", (run_id, len(attempts))).rowcount
    put = connection.executemany(
        """
        INSERT INTO attempts (run_id, number, start_kind, start_note, from_iteration, to_iteration, started_at,
            ended_at, heartbeat_at, end_reason, pid, host, device, environment, command)
        VALUES (:run, :number, :start_kind, :start_note, :from_iteration, :to_iteration, :started_at,
            :ended_at, :ended_at, :end_reason, 0, 'unknown', 'unknown', '{}', '')
        ON CONFLICT (run_id, number) DO UPDATE SET
            start_kind = excluded.start_kind, start_note = excluded.start_note,
            from_iteration = excluded.from_iteration, to_iteration = excluded.to_iteration,
            ended_at = excluded.ended_at, heartbeat_at = excluded.heartbeat_at, end_reason = excluded.end_reason
        WHERE (start_kind, from_iteration, to_iteration, end_reason) IS NOT
            (excluded.start_kind, excluded.from_iteration, excluded.to_iteration, excluded.end_reason)
        """,
        [{**attempt, "run": run_id, "number": number} for number, attempt in enumerate(attempts, start=1)],
    )
    return gone + put.rowcount


def _put_points(db: Registry, run_id: int) -> int:
    """Bring the points in line with those gathered, and the summary of each curve that changed."""
    connection = db.connection
    names = [name for (name,) in connection.execute("SELECT DISTINCT name FROM temp.points").fetchall()]
    for name in names:
        intern(db, name)
    there = [row[0] for row in connection.execute("SELECT name_id FROM series WHERE run_id = ?", (run_id,)).fetchall()]
    gone = 0
    if there:
        gone = connection.execute(
            """
            DELETE FROM metrics
            WHERE run_id = ? AND NOT EXISTS (
                SELECT 1
                FROM temp.points AS point
                WHERE point.name = (SELECT name FROM metric_names WHERE id = name_id)
                    AND point.iteration = metrics.iteration
            )
            """,
            (run_id,),
        ).rowcount
    put = connection.execute(
        """
        INSERT INTO metrics (run_id, name_id, iteration, value, elapsed_ms)
        SELECT ?, metric_names.id, point.iteration, point.value, point.elapsed_ms
        FROM temp.points AS point
        CROSS JOIN metric_names ON metric_names.name = point.name
        WHERE true
        ON CONFLICT DO UPDATE SET value = excluded.value, elapsed_ms = excluded.elapsed_ms
        WHERE (value, elapsed_ms) IS NOT (excluded.value, excluded.elapsed_ms)
        """,
        (run_id,),
    ).rowcount
    if gone or put:
        rebuild(connection, run_id, {*there, *(db.name_ids[name] for name in names)})
    return int(gone + put)


def _put_checkpoints(
    connection: sqlite3.Connection,
    run_id: int,
    checkpoints: Sequence[ImportedCheckpoint],
    unread: Sequence[int],
    offered: int | None,
) -> int:
    put = connection.executemany(
        f"""
        INSERT INTO checkpoints (run_id, attempt_id, iteration, adapter_file, bytes, adapter_sha256, train_loss,
            validation_loss, created_at)
        VALUES (:run, (SELECT max(id) FROM attempts WHERE run_id = :run), :iteration, :adapter_file, :bytes,
            :adapter_sha256, {_at("train_loss")}, {_at("validation_loss")}, :created_at)
        ON CONFLICT (run_id, iteration) DO UPDATE SET
            attempt_id = excluded.attempt_id, adapter_file = excluded.adapter_file, bytes = excluded.bytes,
            adapter_sha256 = excluded.adapter_sha256, train_loss = excluded.train_loss,
            validation_loss = excluded.validation_loss, created_at = excluded.created_at, status = 'whole',
            verified_at = NULL
        WHERE (adapter_sha256, train_loss, validation_loss, status) IS NOT
            (excluded.adapter_sha256, excluded.train_loss, excluded.validation_loss, 'whole')
        """,
        [{**each, "run": run_id} for each in checkpoints],
    ).rowcount
    gone = connection.execute(
        """
        UPDATE checkpoints
        SET status = 'missing'
        WHERE run_id = ? AND status = 'whole' AND iteration NOT IN (SELECT value FROM json_each(?))
        """,
        (run_id, to_json([*unread, *(each["iteration"] for each in checkpoints)])),
    ).rowcount
    connection.execute(
        """
        UPDATE runs
        SET offered_checkpoint_id = (SELECT id FROM checkpoints WHERE run_id = :run AND iteration = :offered)
        WHERE id = :run
        """,
        {"run": run_id, "offered": offered},
    )
    mark_best(connection, run_id)
    return int(max(put, 0) + gone)


def _at(metric: str) -> str:
    """SQL for the value of a metric at a checkpoint's iteration, where one was reported there."""
    return f"""(
        SELECT value
        FROM metrics
        WHERE run_id = :run AND iteration = :iteration
            AND name_id = (SELECT id FROM metric_names WHERE name = '{metric}')
    )"""
