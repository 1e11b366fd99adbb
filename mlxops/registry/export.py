"""Reading whole tables in pieces: any number of rows in little memory, and no transaction held open meanwhile.

A reader that holds one makes the log grow as long as another process writes, and whoever takes the rows may be slow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from mlxops.registry.database import Registry
from mlxops.registry.views import RunSummaryView

Rows = list[tuple[Any, ...]]

_PIECE = 10_000

_KINDS: dict[Any, str] = {int: "INTEGER", float: "REAL", str: "TEXT"}

_POINTS = """
    SELECT iteration, value, elapsed_ms / 1000.0
    FROM metrics
    WHERE run_id = ? AND name_id = ? AND iteration > ?
    ORDER BY iteration
    LIMIT ?
"""

_IN = "IN (SELECT value FROM json_each(:runs))"
# The + keeps SQLite from looking up each run and sorting what it finds, once a piece.
_OF_RUNS = {
    "runs": f"+id {_IN}",
    "evaluations": f"(+run_id {_IN} OR id IN (SELECT base_evaluation_id FROM evaluations WHERE run_id {_IN}))",
    "scores": f"+evaluation_id IN (SELECT id FROM evaluations WHERE run_id {_IN})",
    "answers": f"+evaluation_id IN (SELECT id FROM evaluations WHERE run_id {_IN})",
    "trials": f"+benchmark_id IN (SELECT id FROM benchmarks WHERE run_id {_IN})",
}


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """A table to be read once: its columns with their types (INTEGER, REAL, TEXT or BLOB), its rows in pieces."""

    name: str
    columns: tuple[tuple[str, str], ...]
    pieces: Iterator[Rows]


def read_metrics(db: Registry, run_ids: Sequence[int]) -> TableRows:
    """The points of these runs as the view `metric` has them, by run, name and iteration."""
    columns = (("run", "TEXT"), ("name", "TEXT"), ("iteration", "INTEGER"), ("value", "REAL"))
    return TableRows(
        name="metrics", columns=(*columns, ("elapsed_seconds", "REAL")), pieces=_points_in_pieces(db, run_ids)
    )


def read_runs(db: Registry, run_ids: Sequence[int]) -> TableRows:
    """The rows of `run_summary` of these runs."""
    hints = get_type_hints(RunSummaryView)  # SQLite cannot say what type a view's expressions are of
    kinds = {name: _KINDS[next(iter(get_args(hint)), hint)] for name, hint in hints.items()}
    columns = tuple(
        (row["name"], row["type"] or kinds[row["name"]])
        for row in db.rows("SELECT name, type FROM pragma_table_info('run_summary')")
    )

    def pieces() -> Iterator[Rows]:
        for first in range(0, len(run_ids), _PIECE):
            asked = json.dumps(run_ids[first : first + _PIECE])
            yield db.connection.execute(
                f"SELECT * FROM run_summary WHERE id {_IN} ORDER BY id", {"runs": asked}
            ).fetchall()

    return TableRows(name="runs", columns=columns, pieces=pieces())


def read_tables(db: Registry, run_ids: Sequence[int] | None) -> list[TableRows]:
    """Every strict table of the registry with all its columns, or of those that tell of runs these runs' rows."""
    tables = db.rows(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict ORDER BY name"
    )
    return [_read_table(db, row["name"], run_ids) for row in tables]


def _points_in_pieces(db: Registry, run_ids: Sequence[int]) -> Iterator[Rows]:
    for run_id in run_ids:
        curves = db.connection.execute(
            """
            SELECT name_id, runs.name, metric_names.name
            FROM series CROSS JOIN metric_names ON metric_names.id = name_id CROSS JOIN runs ON runs.id = run_id
            WHERE run_id = ?
            ORDER BY metric_names.name
            """,
            (run_id,),
        ).fetchall()
        for name_id, run, name in curves:
            after, is_full = -1, True
            while is_full:
                points = db.connection.execute(_POINTS, (run_id, name_id, after, _PIECE)).fetchall()
                if points:
                    yield [(run, name, *point) for point in points]
                    after = points[-1][0]
                is_full = len(points) == _PIECE


def _read_table(db: Registry, name: str, run_ids: Sequence[int] | None) -> TableRows:
    described = db.rows("SELECT name, type, pk FROM pragma_table_info(?)", (name,))
    key = [row["name"] for row in sorted(described, key=lambda row: row["pk"]) if row["pk"]] or ["rowid"]
    condition = None
    if run_ids is not None:
        has_run = any(row["name"] == "run_id" for row in described)
        condition = _OF_RUNS.get(name) or (f"+run_id {_IN}" if has_run else None)
    return TableRows(
        name=name,
        columns=tuple((row["name"], row["type"]) for row in described),
        pieces=_table_in_pieces(db, name, [row["name"] for row in described], key, condition, run_ids),
    )


def _table_in_pieces(
    db: Registry,
    name: str,
    columns: Sequence[str],
    key: Sequence[str],
    condition: str | None,
    run_ids: Sequence[int] | None,
) -> Iterator[Rows]:
    """Pieces of a table, each from the key on at which the one before ended."""
    keys = ", ".join(map(_quoted, key))
    asked = {"runs": json.dumps(run_ids)} if condition else {}
    last: tuple[Any, ...] | None = None
    while True:
        beyond = f"({keys}) > ({', '.join(f':key_{place}' for place in range(len(key)))})" if last else None
        conditions = " AND ".join(filter(None, (condition, beyond)))
        found = db.connection.execute(
            f"""
            SELECT {keys}, {", ".join(map(_quoted, columns))}
            FROM {_quoted(name)} {"WHERE " + conditions if conditions else ""}
            ORDER BY {keys}
            LIMIT {_PIECE}
            """,
            {**asked, **{f"key_{place}": value for place, value in enumerate(last or ())}},
        ).fetchall()
        if not found:
            return
        yield [row[len(key) :] for row in found]
        last = found[-1][: len(key)]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
