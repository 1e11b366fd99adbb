"""The answer to a question: a table that fits the terminal, or data for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables
from mlxops.ui.terminal.tables import Format

LIMITS: Mapping[str, int] = {"table": 1000}
"""Rows that a format shows; those that are data have no limit."""

_LONGEST = 2000  # characters of a value in a table


def format_of(asked: Format | None, is_json: bool, console: Console) -> Format:
    """How to write the rows: as asked for, else a table in a terminal and CSV in a pipe."""
    if is_json:
        return "json"
    return asked or ("table" if console.is_terminal else "csv")


def answer(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    console: Console,
    notes: Console,
    *,
    format: Format,
    more: bool = False,
) -> None:
    """The rows; beside a table, `notes` says that there are none, or more."""
    if format in ("table", "md"):
        # SQLite names a column after its whole expression, lines and all
        columns = [words.visible(name) for name in columns]
    if format == "table":
        rows = [[_cut(value) for value in row] for row in rows]
    tables.table(columns, rows, console, format)
    if format == "table" and not rows:
        notes.print("no rows", soft_wrap=True)
    if more:
        notes.print(f"these are the first {len(rows):,} rows: --format csv writes all", soft_wrap=True)


def _cut(value: Any) -> Any:
    return value[:_LONGEST] + "…" if isinstance(value, str) and len(value) > _LONGEST else value
