"""What happened to a run, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlxops import times
from mlxops.registry.database import Registry
from mlxops.registry.rows import JsonObject
from mlxops.registry.runs import to_json
from mlxops.registry.views import EventView


def add_event(
    db: Registry,
    run_id: int,
    attempt_id: int | None,
    *,
    kind: str,
    message: str,
    level: str = "info",
    iteration: int | None = None,
    detail: JsonObject | None = None,
    at: float | None = None,
) -> None:
    """Add a line to a run's history: level info, warning or error. Numbers in `detail` that are not finite are None.

    `at` is when it happened, in seconds since 1970, now unless given; what is there with that time is not added again.
    """
    with db.transaction() as connection:
        connection.execute(
            """
            INSERT INTO events (run_id, attempt_id, iteration, time, level, kind, message, detail)
            SELECT :run, :attempt, :iteration, coalesce(:time, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), :level, :kind,
                :message, :detail
            WHERE :time IS NULL OR NOT EXISTS (
                SELECT 1
                FROM events
                WHERE run_id = :run AND iteration IS :iteration AND kind = :kind AND time = :time AND message = :message
            )
            """,
            {
                "run": run_id,
                "attempt": attempt_id,
                "iteration": iteration,
                "time": times.stored_at(at),
                "level": level,
                "kind": kind,
                "message": message,
                "detail": to_json(finite(detail)) if detail else None,
            },
        )


def events_of(db: Registry, run_id: int, last: int | None = None) -> list[EventView]:
    """A run's history from old to new, or the `last` lines of it; what a later attempt told again is there once."""
    newest_first = db.rows(
        "SELECT * FROM event WHERE run_id = ? ORDER BY id DESC LIMIT ?",
        (run_id, -1 if last is None else last),
        of=EventView,
    )
    return newest_first[::-1]


def finite(value: Any) -> Any:
    """The same without what JSON has no word for: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value
