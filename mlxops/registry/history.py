"""What happened to a run, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
) -> None:
    """Add a line to a run's history: level info, warning or error. Numbers in `detail` that are not finite are None."""
    with db.transaction() as connection:
        connection.execute(
            """
            INSERT INTO events (run_id, attempt_id, iteration, level, kind, message, detail)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            (run_id, attempt_id, iteration, level, kind, message, to_json(finite(detail)) if detail else None),
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
