"""The lines that several drawings share: a bar, values side by side, where a series is heading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mlxops import words

if TYPE_CHECKING:
    from mlxops.registry import EventView

_GAP = 2


def line(text: str = "", style: str = "") -> Text:
    """One line that is cut where the terminal ends."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def bar(fraction: float | None, width: int, *, unicode: bool = True) -> Text:
    """How much is done; the two parts are different characters, so that it reads without colour."""
    share = min(max(fraction or 0.0, 0.0), 1.0)
    full = math.floor(share * width)
    done, left = ("━", "─") if unicode else ("#", ".")
    return line().append(done * full, "green" if share >= 1 else "cyan").append(left * (width - full), "dim")


def pairs(values: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Labels and their values in as many aligned columns as fit, read along the lines."""
    if not values:
        return []
    for columns in range(min(len(values), max(width // 12, 1)), 0, -1):
        widths = _column_widths(values, columns)
        if columns == 1 or sum(label + value + 1 for label, value in widths) + _GAP * (columns - 1) <= width:
            break
    rows = []
    for start in range(0, len(values), columns):
        row = line()
        for (label, value), (label_width, value_width) in zip(values[start : start + columns], widths, strict=False):
            row.append(set_cell_size(label, label_width) + " ", "dim").append(
                set_cell_size(value, max(value_width, cell_len(value))) + " " * _GAP
            )
        row.rstrip()
        rows.append(row)
    return rows


def events(rows: Iterable[EventView], now: datetime) -> list[Text]:
    """One line an event of the registry: when, at which iteration, and what; a warning says so in words."""
    drawn = []
    for row in rows:
        text = line().append(f"{words.age(row['time'], now):>15}  ", "dim")
        if row["iteration"] is not None:
            text.append(f"{words.count(row['iteration'])}  ")
        if row["level"] != "info":
            text.append(f"{row['level']}: ", "bold red" if row["level"] == "error" else "bold yellow")
        drawn.append(text.append(words.visible(row["message"])))
    return drawn


def style_of_status(status: str) -> str:
    """The colour of a status; the word itself always stands beside it."""
    return _STATUS_STYLES.get(status, "")


_STATUS_STYLES = {
    "running": "green",
    "completed": "cyan",
    "interrupted": "yellow",
    "lost": "bold red",
    "failed": "red",
}


def _column_widths(values: Sequence[tuple[str, str]], columns: int) -> list[tuple[int, int]]:
    return [
        (
            max(cell_len(label) for label, _ in values[column::columns]),
            max(cell_len(value) for _, value in values[column::columns]),
        )
        for column in range(columns)
    ]
