"""Tags, notes, what removing runs takes, and what an export wrote: facts in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from mlxops import words

Row = Mapping[str, Any]

_SHOWN = 5  # names of what stays in a folder


def tags(rows: Sequence[Row], console: Console) -> None:
    """One line a run with its tags."""
    for row in rows:
        _line(f"{row['run']}: {', '.join(row['tags']) or 'no tags'}", console)


def note(row: Row, console: Console) -> None:
    """A run and its note."""
    _line(f"{row['run']}: {row['note'] or 'no note'}", console)


def to_remove(removal: Row, console: Console) -> None:
    """What would be deleted: each run's folder with its files and sizes, then the rows."""
    _removal(removal, "would be deleted", console)


def removed(removal: Row, console: Console) -> None:
    """What went, what stays, and where `adapters/latest` points now."""
    _removal(removal, "removed", console)
    if removal["latest"]:
        _line(f"adapters/latest is {removal['latest']}", console)


def written(files: Sequence[Row], console: Console) -> None:
    """One line a file that an export wrote."""
    for each in files:
        size = "" if each["bytes"] is None else f", {words.size(each['bytes'])}"
        _line(f"{each['file']}: {words.count(each['rows'])} rows{size}", console)


def _removal(removal: Row, verb: str, console: Console) -> None:
    _line(f"{verb}: {', '.join(removal['runs'])}", console)
    for folder in removal["folders"]:
        if folder["stays_because"]:
            _line(f"  {folder['folder']} stays: {folder['stays_because']}", console)
            continue
        size = words.size(sum(folder["files"].values()))
        _line(f"  {folder['folder']}: {_plural(len(folder['files']), 'file')}, {size}", console)
        if folder["restored"]:
            _line(f"    as it was before the run again: {', '.join(folder['restored'])}", console)
        if folder["others"]:
            more = len(folder["others"]) - _SHOWN
            names = ", ".join(folder["others"][:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
            _line(f"    stays, being no file of the run: {names}", console)
    if not removal["folders"]:
        _line("  the folders stay, and the next training there takes them up as runs again", console)
    rows = [_plural(count, name.removesuffix("s")) for name, count in removal["rows"].items() if count]
    _line(f"  rows: {', '.join([_plural(len(removal['runs']), 'run'), *rows])}", console)


def _plural(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def _line(text: str, console: Console) -> None:
    console.print(words.visible(text), soft_wrap=True)
