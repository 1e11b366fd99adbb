"""Checkpoints: rows about files that were whole before the row was written."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from mlxops import times
from mlxops.errors import NotFound
from mlxops.registry.database import Registry
from mlxops.registry.metrics import record_best, record_progress
from mlxops.registry.rows import CheckpointRow

_SET_BACK = """
    EXISTS (
        SELECT 1
        FROM attempts
        WHERE attempts.run_id = :run AND attempts.id > checkpoints.attempt_id
            AND attempts.from_iteration < checkpoints.iteration
    )
"""
"""Whether a later attempt began before a checkpoint, and removed its point; never of one made from the run's folder."""


class OfferedCheckpoint(CheckpointRow):
    """A checkpoint; `is_offered` is 1 where the run's folder offers it, else 0."""

    is_offered: int


def add_checkpoint(
    db: Registry,
    run_id: int,
    attempt_id: int | None,
    *,
    iteration: int,
    adapter_file: str,
    state_file: str | None,
    bytes: int,
    adapter_sha256: str,
    state_sha256: str | None,
    train_loss: float | None = None,
    validation_loss: float | None = None,
    offered: bool = True,
    trained_tokens: int | None = None,
    epoch: int | None = None,
    at: float | None = None,
) -> int:
    """Record a checkpoint whose files are whole and synced, durably, and return its id.

    One at the same iteration is replaced, and keeps the closing validation of the same weights. `offered` makes it the
    one the run offers. `at` is when it was written, in seconds since 1970, now unless given.
    """
    with db.transaction(durable=True) as connection:
        ((checkpoint_id,),) = connection.execute(
            """
            INSERT INTO checkpoints (run_id, attempt_id, iteration, adapter_file, state_file, bytes, adapter_sha256,
                state_sha256, train_loss, validation_loss, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
            ON CONFLICT (run_id, iteration) DO UPDATE SET
                attempt_id = excluded.attempt_id, adapter_file = excluded.adapter_file,
                state_file = excluded.state_file, bytes = excluded.bytes, adapter_sha256 = excluded.adapter_sha256,
                state_sha256 = excluded.state_sha256, train_loss = excluded.train_loss,
                validation_loss = iif(
                    adapter_sha256 = excluded.adapter_sha256 AND closing_elapsed_ms IS NOT NULL,
                    coalesce(excluded.validation_loss, validation_loss), excluded.validation_loss
                ),
                closing_standard_error = iif(adapter_sha256 = excluded.adapter_sha256, closing_standard_error, NULL),
                closing_elapsed_ms = iif(adapter_sha256 = excluded.adapter_sha256, closing_elapsed_ms, NULL),
                created_at = excluded.created_at, status = 'whole', verified_at = NULL, state_pruned_at = NULL
            RETURNING id
            """,
            (
                run_id,
                attempt_id,
                iteration,
                adapter_file,
                state_file,
                bytes,
                adapter_sha256,
                state_sha256,
                train_loss,
                validation_loss,
                times.stored_at(at),
            ),
        ).fetchall()
        mark_best(connection, run_id)
        if offered:
            connection.execute("UPDATE runs SET offered_checkpoint_id = ? WHERE id = ?", (checkpoint_id, run_id))
        record_progress(connection, run_id, iteration, epoch, trained_tokens)
    return int(checkpoint_id)


def mark_checkpoint(db: Registry, run_id: int, iteration: int, status: str) -> None:
    """Record what was found of a checkpoint's files: whole, corrupt, missing, or pruned by a task."""
    with db.transaction() as connection:
        marked = connection.execute(
            """
            UPDATE checkpoints
            SET status = :status,
                verified_at = iif(:status = 'pruned', verified_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
            WHERE run_id = :run AND iteration = :iteration
            """,
            {"run": run_id, "iteration": iteration, "status": status},
        )
        if not marked.rowcount:
            raise NotFound(f"the run has no checkpoint at iteration {iteration}", hint="`inv checkpoints` lists them")
        mark_best(connection, run_id)


def mark_pruned(
    db: Registry,
    run_id: int,
    *,
    states: Sequence[int],
    adapters: Sequence[int],
    bytes_left: Mapping[int, int] | None = None,
) -> None:
    """Record that the files of these iterations go, durably and before they do: states alone, or the adapters too.

    `bytes_left` is what remains of those whose state alone goes.
    """
    with db.transaction(durable=True) as connection:
        connection.executemany(
            """
            UPDATE checkpoints
            SET state_pruned_at = coalesce(state_pruned_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
                bytes = coalesce(?, bytes)
            WHERE run_id = ? AND iteration = ?
            """,
            [((bytes_left or {}).get(iteration), run_id, iteration) for iteration in states],
        )
        connection.executemany(
            "UPDATE checkpoints SET status = 'pruned' WHERE run_id = ? AND iteration = ?",
            [(run_id, iteration) for iteration in adapters],
        )
        mark_best(connection, run_id)


def branch_points(db: Registry, run_id: int) -> set[int]:
    """The iterations of a run that other runs branched from."""
    found = db.rows(
        "SELECT DISTINCT branch_iteration FROM runs WHERE parent_id = ? AND branch_iteration IS NOT NULL", (run_id,)
    )
    return {row["branch_iteration"] for row in found}


def checkpoints_of(db: Registry, run_id: int) -> list[CheckpointRow]:
    """A run's checkpoints by iteration, whatever their status."""
    return db.rows("SELECT * FROM checkpoints WHERE run_id = ? ORDER BY iteration", (run_id,), of=CheckpointRow)


def all_checkpoints(db: Registry) -> dict[int, list[OfferedCheckpoint]]:
    """The checkpoints of every run by its id, each by iteration, whatever their status."""
    found: dict[int, list[OfferedCheckpoint]] = {}
    for row in db.rows(
        """
        SELECT checkpoints.*, checkpoints.id IS runs.offered_checkpoint_id AS is_offered
        FROM checkpoints JOIN runs ON runs.id = checkpoints.run_id
        ORDER BY checkpoints.run_id, checkpoints.iteration
        """,
        of=OfferedCheckpoint,
    ):
        found.setdefault(row["run_id"], []).append(row)
    return found


def offer_checkpoint(db: Registry, run_id: int, iteration: int, *, message: str) -> None:
    """Record that the run offers this checkpoint from now on, and say so in its history."""
    with db.transaction(durable=True) as connection:
        chosen = connection.execute(
            """
            UPDATE runs
            SET offered_checkpoint_id = checkpoints.id, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
            FROM checkpoints
            WHERE runs.id = :run AND checkpoints.run_id = :run AND checkpoints.iteration = :iteration
            """,
            {"run": run_id, "iteration": iteration},
        )
        if not chosen.rowcount:
            raise NotFound(f"the run has no checkpoint at iteration {iteration}", hint="`inv checkpoints` lists them")
        connection.execute(
            "INSERT INTO events (run_id, iteration, kind, message) VALUES (?, ?, 'offered', ?)",
            (run_id, iteration, message),
        )


def iteration_rates(db: Registry) -> dict[int, float]:
    """The newest iterations a second of every run that has reported any, by its id."""
    rows = db.rows(
        """
        SELECT series.run_id, series.last_value
        FROM series
        WHERE series.name_id = (SELECT id FROM metric_names WHERE name = 'iterations_per_second')
            AND series.last_value > 0
        """
    )
    return {row["run_id"]: row["last_value"] for row in rows}


def mark_best(connection: sqlite3.Connection, run_id: int) -> None:
    """Mark the whole checkpoint with the lowest validation loss of a run, within the caller's transaction.

    The run's best is kept with it: a closing validation counts for it as long as its checkpoint is there. Of a run that
    was set back, a loss beyond counts for neither until it is measured again.
    """
    connection.execute(
        f"""
        UPDATE checkpoints
        SET is_best = id IS (
            SELECT id
            FROM checkpoints
            WHERE run_id = :run AND status = 'whole' AND validation_loss IS NOT NULL AND (
                closing_elapsed_ms IS NOT NULL
                OR NOT {_SET_BACK}
                OR EXISTS (
                    SELECT 1
                    FROM metrics
                    WHERE run_id = :run AND iteration = checkpoints.iteration AND value = checkpoints.validation_loss
                        AND name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
                )
            )
            ORDER BY validation_loss, iteration
            LIMIT 1
        )
        WHERE run_id = :run
        """,
        {"run": run_id},
    )
    record_best(connection, run_id)


def keep_closing(connection: sqlite3.Connection, run_id: int, iteration: int) -> None:
    """Keep a target's closing validation with its checkpoint: the curve loses it, as the run continues beyond it.

    Within the caller's transaction, before the points go.
    """
    connection.execute(
        """
        UPDATE checkpoints
        SET closing_elapsed_ms = losses.elapsed_ms,
            closing_standard_error = (
                SELECT value
                FROM metrics
                WHERE run_id = :run AND iteration = :iteration
                    AND name_id = (SELECT id FROM metric_names WHERE name = 'validation_standard_error')
            )
        FROM metrics AS losses
        WHERE checkpoints.run_id = :run AND checkpoints.iteration = :iteration AND checkpoints.status = 'whole'
            AND checkpoints.validation_loss = losses.value
            AND losses.run_id = :run AND losses.iteration = :iteration
            AND losses.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
        """,
        {"run": run_id, "iteration": iteration},
    )


def forget_closings(connection: sqlite3.Connection, run_id: int) -> None:
    """Drop the closing validations that a run kept when it continued, which a straight one would not have.

    One that carries no mark goes too: that of a run that continued from an earlier checkpoint, trained its iteration
    again and did not validate there. Within the caller's transaction.
    """
    connection.execute(
        f"""
        UPDATE checkpoints
        SET closing_elapsed_ms = NULL, closing_standard_error = NULL,
            validation_loss = (
                SELECT value
                FROM metrics
                WHERE run_id = checkpoints.run_id AND iteration = checkpoints.iteration
                    AND name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
            )
        WHERE run_id = :run AND (
            closing_elapsed_ms IS NOT NULL
            OR (
                validation_loss IS NOT NULL
                AND iteration NOT IN (
                    SELECT iteration
                    FROM metrics
                    WHERE run_id = :run
                        AND name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
                )
                -- a row made from the run's folder has a loss without a point too
                AND {_SET_BACK}
            )
        )
        """,
        {"run": run_id},
    )
    mark_best(connection, run_id)
