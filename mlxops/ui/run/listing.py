"""The list of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console

from mlxops import hints, words
from mlxops.ui.terminal import lines
from mlxops.ui.terminal.tables import SPACE, Column, print_columns, print_table, shortened

if TYPE_CHECKING:
    from mlxops.registry import RunSummaryView

_NUMBERS = ("id", "iteration", "best", "validation", "train", "tokens/s", "attempts")
_IMPORTED = ", imported"


def runs(
    rows: Sequence[RunSummaryView],
    console: Console,
    now: datetime,
    columns: Sequence[str] = (),
    *,
    is_narrowed: bool = False,
) -> None:
    """The runs in their order, with as many columns as the terminal has room for, or with the `columns` of these names.

    `is_narrowed` says that not all runs were asked for.
    """
    if not rows:
        nothing = "no runs yet: `inv lora --model MODEL --data DATA` starts one"
        console.print(
            hints.for_program("no run is like that: `inv runs` shows all" if is_narrowed else nothing), soft_wrap=True
        )
        return
    if columns:
        chosen: list[Mapping[str, object]] = [*rows]
        print_table(columns, [[_summary_value(name, row[name], now) for name in columns] for row in chosen], console)
        return
    cells = [_run_cells(row, now) for row in rows]
    widths = {name: max(cell_len(name), *(cell_len(each[name]) for each in cells)) for name in cells[0]}
    shown = _columns_that_fit(widths, console.width)
    room = console.width - sum(widths[name] + SPACE for name in shown if name != "name")
    widths["name"] = min(widths["name"], max(room, 1))
    for each in cells:
        each["name"] = shortened(each["name"], widths["name"])
    styled = ([(each[name], _style_of(name, each[name])) for name in shown] for each in cells)
    print_columns([Column(name, widths[name], name in _NUMBERS) for name in shown], styled, console)


def _run_cells(row: RunSummaryView, now: datetime) -> dict[str, str]:
    return {
        "id": str(row["id"]),
        "name": words.visible(row["name"]),
        "status": row["status"] + (_IMPORTED if row["imported_from"] else ""),
        "iteration": words.progress(row["iteration"], row["target_iterations"] if row["is_target_known"] else None),
        "train": words.number(row["train_loss"]),
        "validation": words.number(row["validation_loss"]),
        "best": words.number(row["best_validation_loss"]),
        "tokens/s": words.count(row["tokens_per_second"]),
        "left": words.duration(row["eta_seconds"]) if row["status"] == "running" else "",
        "time": words.duration(row["seconds"]),
        "attempts": words.count(row["attempts"]),
        "model": words.visible(row["model"]),
        "updated": words.age(row["updated_at"], now),
    }


def _summary_value(column: str, value: Any, now: datetime) -> Any:
    """A value of `run_summary` for a person; numbers stay numbers, which stand to the right."""
    if value is None:
        return words.NOTHING
    if column.endswith("_at"):
        return words.age(value, now)
    return words.duration(value) if column in ("seconds", "eta_seconds") else value


def _columns_that_fit(widths: Mapping[str, int], width: int) -> list[str]:
    """Columns in their order; those of less use go first, and a long name gives way to the first few."""
    chosen = {"id", "name", "status"}
    room = width - widths["id"] - min(widths["name"], 24) - 2 * SPACE - widths["status"]
    for name in (
        "iteration",
        "best",
        "updated",
        "validation",
        "train",
        "tokens/s",
        "left",
        "time",
        "attempts",
        "model",
    ):
        if widths[name] + SPACE > room:
            break
        chosen.add(name)
        room -= widths[name] + SPACE
    return [name for name in widths if name in chosen]


def _style_of(column: str, text: str) -> str:
    return lines.style_of_status(text.removesuffix(_IMPORTED)) if column == "status" else ""
