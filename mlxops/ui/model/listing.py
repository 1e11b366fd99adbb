"""The list of models as a table: what each is, where it is, and whether it fits this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.model.listing import ModelList

_WIDE = 110  # columns of a terminal that has room for more than an id needs


def models(found: ModelList, console: Console, notes: Console) -> None:
    """One row for each model; what is wrong with one that cannot be used stands below the table."""
    is_wide = console.width >= _WIDE
    has_hub = is_wide and any(each.where == "hub" for each in found.entries)
    has_source = is_wide and any(each.source for each in found.entries)
    columns = ["name", "where", "weights", "size", "fit"]
    columns += [*(["format", "downloads"] if has_hub else []), *(["source"] if has_source else [])]
    rows = []
    for each in found.entries:
        numbers = [_short(each.parameters), each.quantization or each.dtype]
        weights = " ".join(part for part in numbers if part)
        where = each.where if each.project is None else Path(each.project).name
        row = [each.name, where, weights or words.NOTHING, words.size(each.bytes)]
        row.append("problem" if each.problem else each.fit or words.NOTHING)
        row += [each.format or words.NOTHING, words.count(each.downloads)] if has_hub else []
        row += [each.source or words.NOTHING] if has_source else []
        rows.append(row)
    if rows:
        tables.table(columns, rows, console)
        for each in found.entries:
            if each.problem:
                console.print(f"{each.name}: {words.visible(each.problem)}", soft_wrap=True, markup=False)
    else:
        notes.print("no models", soft_wrap=True)
    for project in dict.fromkeys(each.project for each in found.entries if each.project is not None):
        notes.print(f"{Path(project).name} is the project {words.visible(project)}", soft_wrap=True, markup=False)
    for note in found.notes:
        notes.print(note, soft_wrap=True, markup=False, highlight=False)


def _short(parameters: int | None) -> str | None:
    if parameters is None:
        return None
    return f"{parameters / 1e9:.3g} G" if parameters >= 1e9 else f"{parameters / 1e6:.3g} M"
