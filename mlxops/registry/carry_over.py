"""Taking a run at work into another registry: from the file that was removed or replaced, which is still open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from mlxops.registry.checkpoints import mark_best
from mlxops.registry.database import Registry
from mlxops.registry.metrics import intern, rebuild
from mlxops.registry.rows import AttemptRow
from mlxops.registry.runs import to_json

_OF_THE_OTHER_FILE = ("id", "parent_id", "offered_checkpoint_id")
"""Columns of `runs` that are numbers of rows in the file that is left."""


def run_of(db: Registry, name: str, fingerprint: str) -> int | None:
    """The run of this name and fingerprint, None where the registry does not hold it."""
    found = db.rows("SELECT id FROM runs WHERE name = ? AND fingerprint = ?", (name, fingerprint))
    return found[0]["id"] if found else None


def carry_over(source: Registry, run_id: int, target: Registry) -> int | None:
    """Bring a run into another registry as the source has it, in one transaction; returns its number there.

    Its row, tags, attempts, checkpoints, events and points. Where the target holds the run, what is missing is added
    and its points are replaced. None where another run of the target has the name.
    """
    (run,) = source.rows("SELECT * FROM runs WHERE id = ?", (run_id,))
    values = {name: value for name, value in run.items() if name not in _OF_THE_OTHER_FILE}
    with target.transaction(durable=True) as connection:
        there = run_of(target, run["name"], run["fingerprint"])
        if there is None:
            if connection.execute("SELECT 1 FROM runs WHERE name = ?", (run["name"],)).fetchall():
                return None
            there = _insert(connection, "runs", values)
        else:
            _update(connection, "runs", values, there)
        for parent in source.rows("SELECT name, fingerprint FROM runs WHERE id = ?", (run["parent_id"],)):
            _update(connection, "runs", {"parent_id": run_of(target, **parent)}, there)
        attempts = _attempts(source, run_id, connection, there)
        _checkpoints(source, run_id, connection, there, attempts)
        _events(source, run_id, connection, there, attempts)
        for row in source.rows("SELECT tag FROM tags WHERE run_id = ?", (run_id,)):
            connection.execute("INSERT INTO tags VALUES (?, ?) ON CONFLICT DO NOTHING", (there, row["tag"]))
        _points(source, run_id, target, there)
        mark_best(connection, there)
    return there


def add_attempt(db: Registry, run_id: int, attempt: AttemptRow) -> int:
    """Have a run whose row was made again be worked on by an attempt that began before; returns its number there."""
    with db.transaction() as connection:
        number = connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM attempts WHERE run_id = ?", (run_id,)
        ).fetchone()[0]
        values = {**attempt, "run_id": run_id, "number": number, "environment": to_json(attempt["environment"])}
        del values["id"]
        _update(connection, "runs", {"status": "running"}, run_id)
        return _insert(connection, "attempts", values)


def _attempts(source: Registry, run_id: int, connection: sqlite3.Connection, there: int) -> dict[int | None, int]:
    """The attempts by their number in the source; one that began at the same time in the same process is the same."""
    found: dict[int | None, int] = {}
    for row in source.rows("SELECT * FROM attempts WHERE run_id = ? ORDER BY number", (run_id,)):
        number = row.pop("id")
        same = connection.execute(
            "SELECT id FROM attempts WHERE run_id = ? AND started_at = ? AND pid = ? AND host = ?",
            (there, row["started_at"], row["pid"], row["host"]),
        ).fetchall()
        if same:
            found[number] = same[0][0]
            kept = ("heartbeat_at", "ended_at", "end_reason", "to_iteration", "error")
            _update(connection, "attempts", {name: row[name] for name in kept}, same[0][0])
        else:
            taken = connection.execute("SELECT max(number) FROM attempts WHERE run_id = ?", (there,)).fetchone()[0]
            row |= {"run_id": there, "number": max(row["number"], (taken or 0) + 1)}
            found[number] = _insert(connection, "attempts", row)
    return found


def _checkpoints(
    source: Registry, run_id: int, connection: sqlite3.Connection, there: int, attempts: dict[int | None, int]
) -> None:
    for row in source.rows("SELECT * FROM checkpoints WHERE run_id = ? ORDER BY iteration", (run_id,)):
        row |= {"run_id": there, "attempt_id": attempts.get(row["attempt_id"])}
        offered = source.rows("SELECT 1 FROM runs WHERE offered_checkpoint_id = ?", (row.pop("id"),))
        key = (there, row["iteration"])
        same = connection.execute("SELECT id FROM checkpoints WHERE run_id = ? AND iteration = ?", key).fetchall()
        if same:  # an evaluation may point to it
            _update(connection, "checkpoints", row, same[0][0])
        checkpoint_id = same[0][0] if same else _insert(connection, "checkpoints", row)
        if offered:
            _update(connection, "runs", {"offered_checkpoint_id": checkpoint_id}, there)


def _events(
    source: Registry, run_id: int, connection: sqlite3.Connection, there: int, attempts: dict[int | None, int]
) -> None:
    same = "run_id = ? AND iteration IS ? AND kind = ? AND time = ? AND message = ?"
    for row in source.rows("SELECT * FROM events WHERE run_id = ? ORDER BY id", (run_id,)):
        del row["id"]
        row |= {"run_id": there, "attempt_id": attempts.get(row["attempt_id"])}
        key = (there, row["iteration"], row["kind"], row["time"], row["message"])
        if not connection.execute(f"SELECT 1 FROM events WHERE {same}", key).fetchall():
            _insert(connection, "events", row)


def _points(source: Registry, run_id: int, target: Registry, there: int) -> None:
    connection = target.connection
    connection.execute("DELETE FROM metrics WHERE run_id = ?", (there,))
    connection.execute("DELETE FROM series WHERE run_id = ?", (there,))
    names: Sequence[Any] = source.connection.execute(
        "SELECT metric_names.id, name FROM series JOIN metric_names ON metric_names.id = name_id WHERE run_id = ?",
        (run_id,),
    ).fetchall()
    for name_id, name in names:
        other_id = intern(target, name)
        points = source.connection.execute(
            "SELECT iteration, value, elapsed_ms FROM metrics WHERE run_id = ? AND name_id = ?", (run_id, name_id)
        )
        connection.executemany(
            "INSERT INTO metrics (run_id, name_id, iteration, value, elapsed_ms) VALUES (?, ?, ?, ?, ?)",
            ((there, other_id, *point) for point in points),
        )
        rebuild(connection, there, [other_id])


def _insert(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> int:
    names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    inserted = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING rowid", values)
    return int(inserted.fetchall()[0][0])


def _update(connection: sqlite3.Connection, table: str, values: dict[str, Any], number: int) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(f"UPDATE {table} SET {assignments} WHERE id = :number", {**values, "number": number})
