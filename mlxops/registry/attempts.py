"""Attempts: one process at work on a run, from its start to its end or its loss."""

from __future__ import annotations

import os
from collections.abc import Collection

from mlxops import times
from mlxops.errors import NotFound
from mlxops.registry.checkpoints import forget_closings, keep_closing, mark_best
from mlxops.registry.database import Registry
from mlxops.registry.metrics import forget_points
from mlxops.registry.processes import boot_id, is_proven_dead, process_start, this_host
from mlxops.registry.rows import AttemptRow, JsonObject
from mlxops.registry.runs import to_json

_LOST = """
    UPDATE attempts
    SET ended_at = heartbeat_at, end_reason = 'lost', to_iteration = (SELECT iteration FROM runs WHERE id = run_id)
    WHERE ended_at IS NULL AND
"""


def start_attempt(
    db: Registry,
    run_id: int,
    *,
    start_kind: str,
    start_note: str | None = None,
    from_iteration: int,
    trained_tokens: int,
    target_iterations: int,
    device: str,
    environment: JsonObject,
    command: str,
    git_commit: str | None = None,
    config: JsonObject | None = None,
    closing: Collection[str] = (),
    epoch: int | None = None,
) -> int:
    """Begin this process's work on a run at `from_iteration`, and return the attempt's id.

    One transaction: attempts left open are closed as lost, the run goes back to `from_iteration`, and its metrics
    beyond it are removed; at it, only those named in `closing`, which a longer run would not have. Checkpoints and
    events stay, and the checkpoint at it keeps the validation of that closing until the run has finished.
    """
    with db.transaction() as connection:
        _check_run(db, run_id)
        connection.execute(_LOST + "run_id = ?", (run_id,))
        if "validation_loss" in closing:
            keep_closing(connection, run_id, from_iteration)
        forget_points(connection, run_id, beyond=from_iteration, at=closing)
        inserted = db.tables["attempts"].insert(
            {
                "run_id": run_id,
                "number": 1
                + connection.execute(
                    "SELECT coalesce(max(number), 0) FROM attempts WHERE run_id = ?", (run_id,)
                ).fetchone()[0],
                "start_kind": start_kind,
                "start_note": start_note,
                "from_iteration": from_iteration,
                "pid": os.getpid(),
                "host": this_host(),
                "boot_id": boot_id(),
                "process_started": process_start(os.getpid()),
                "device": device,
                "environment": to_json(environment),
                "command": command,
                "git_commit": git_commit,
            }
        )
        connection.execute(
            """
            UPDATE runs
            SET status = 'running', iteration = :iteration, trained_tokens = :tokens, target_iterations = :target,
                epoch = coalesce(:epoch, iif(:iteration = 0, 0, epoch)), config = coalesce(:config, config),
                updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
            WHERE id = :run
            """,
            {
                "run": run_id,
                "iteration": from_iteration,
                "tokens": trained_tokens,
                "target": target_iterations,
                "epoch": epoch,
                "config": None if config is None else to_json(config),
            },
        )
        mark_best(connection, run_id)
    return int(inserted.last_pk)


def end_attempt(
    db: Registry,
    attempt_id: int,
    *,
    reason: str,
    status: str,
    iteration: int,
    trained_tokens: int | None = None,
    epoch: int | None = None,
    error: str | None = None,
    at: float | None = None,
) -> None:
    """End an attempt and give its run this status, unless a later attempt has taken the run over.

    A run that is completed has no closing validations of earlier targets. `at` is when it ended, in seconds since
    1970, now unless given.
    """
    with db.transaction() as connection:
        connection.execute(
            """
            UPDATE attempts
            SET ended_at = coalesce(:at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
                heartbeat_at = coalesce(:at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
                end_reason = :reason, to_iteration = :iteration, error = :error
            WHERE id = :attempt
            """,
            {
                "at": times.stored_at(at),
                "reason": reason,
                "iteration": iteration,
                "error": error,
                "attempt": attempt_id,
            },
        )
        taken = connection.execute(
            """
            UPDATE runs
            SET status = ?, iteration = ?, trained_tokens = coalesce(?, trained_tokens), epoch = coalesce(?, epoch),
                updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
            WHERE (id, ?) = (
                SELECT run_id, (SELECT max(id) FROM attempts WHERE run_id = ended.run_id)
                FROM attempts AS ended
                WHERE id = ?
            )
            RETURNING id
            """,
            (status, iteration, trained_tokens, epoch, attempt_id, attempt_id),
        ).fetchall()
        if status == "completed":
            for (run_id,) in taken:
                forget_closings(connection, run_id)


def extend_lost(db: Registry, attempt_id: int, at: float) -> None:
    """Move the end of an attempt that was closed as lost to what it is known to have done later."""
    with db.transaction() as connection:
        connection.execute(
            """
            UPDATE attempts
            SET heartbeat_at = max(heartbeat_at, :at), ended_at = max(ended_at, :at),
                to_iteration = (SELECT iteration FROM runs WHERE id = run_id)
            WHERE id = :attempt AND end_reason = 'lost'
            """,
            {"at": times.stored_at(at), "attempt": attempt_id},
        )


def close_dead_attempts(db: Registry) -> int:
    """Close the attempts whose process is proven dead on this machine, and return how many there were.

    They end as lost at their last heartbeat; their runs become interrupted.
    """
    dead = [
        (row["id"], row["run_id"])
        for row in db.rows(
            "SELECT id, run_id, host, boot_id, pid, process_started FROM attempts WHERE ended_at IS NULL"
        )
        if is_proven_dead(row["host"], row["boot_id"], row["pid"], row["process_started"])
    ]
    if not dead:
        return 0
    closed = 0
    with db.transaction() as connection:
        for attempt_id, run_id in dead:
            # another process may have closed it in the meantime
            closed += connection.execute(_LOST + "id = ?", (attempt_id,)).rowcount
            connection.execute(
                """
                UPDATE runs
                SET status = 'interrupted'
                WHERE id = ? AND status = 'running'
                    AND NOT EXISTS (SELECT 1 FROM attempts WHERE run_id = runs.id AND ended_at IS NULL)
                """,
                (run_id,),
            )
    return closed


def attempts_of(db: Registry, run_id: int) -> list[AttemptRow]:
    """A run's attempts in their order."""
    return db.rows("SELECT * FROM attempts WHERE run_id = ? ORDER BY number", (run_id,), of=AttemptRow)


def _check_run(db: Registry, run_id: int) -> None:
    if not db.connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchall():
        raise NotFound(f"no run has the id {run_id}", hint="`inv runs` shows the runs there are")
