"""Tags, notes, what removing runs takes, and what an export wrote: facts in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words

if TYPE_CHECKING:
    from mlxops.jobs.run.annotate import NotedRun, TaggedRun
    from mlxops.jobs.run.delete import Removal, Removed
    from mlxops.jobs.run.export import ExportedTable
    from mlxops.jobs.run.rename import RenamedRun

_SHOWN = 5  # names of what stays in a folder


def tags(rows: Sequence[TaggedRun], console: Console) -> None:
    """One line a run with its tags."""
    for row in rows:
        _line(f"{row.run}: {', '.join(row.tags) or 'no tags'}", console)


def note(row: NotedRun, console: Console) -> None:
    """A run and its note."""
    _line(f"{row.run}: {row.note or 'no note'}", console)


def renamed(run: RenamedRun, console: Console) -> None:
    """A run's new name, and where its folder is."""
    _line(f"{run.was} is now {run.run}, in {run.folder}", console)
    for note in run.notes:
        _line(note, console)


def to_remove(removal: Removal, console: Console) -> None:
    """What would be deleted: each run's folder with its files and sizes, then the rows."""
    _removal(removal, "would be deleted", console)


def removed(done: Removed, console: Console) -> None:
    """What went, what stays, and where `adapters/latest` points now."""
    _removal(done.planned, "removed", console)
    if done.latest:
        _line(f"adapters/latest is {done.latest}", console)


def written(files: Sequence[ExportedTable], console: Console) -> None:
    """One line a file that an export wrote."""
    for each in files:
        size = "" if each.bytes is None else f", {words.size(each.bytes)}"
        _line(f"{each.file}: {words.count(each.rows)} rows{size}", console)


def _removal(removal: Removal, verb: str, console: Console) -> None:
    _line(f"{verb}: {', '.join(removal.names)}", console)
    for folder in removal.folders:
        if folder.stays_because:
            _line(f"  {folder.shown} stays: {folder.stays_because}", console)
            continue
        size = words.size(sum(folder.files.values()))
        _line(f"  {folder.shown}: {words.plural(len(folder.files), 'file')}, {size}", console)
        if folder.restored:
            _line(f"    as it was before the run again: {', '.join(folder.restored)}", console)
        if folder.others:
            _line(f"    stays, being no file of the run: {words.listed(folder.others, _SHOWN)}", console)
    if not removal.folders:
        _line("  the folders stay, and the next training there takes them up as runs again", console)
    rows = [words.plural(count, name.removesuffix("s")) for name, count in removal.rows.items() if count]
    _line(f"  rows: {', '.join([words.plural(len(removal.names), 'run'), *rows])}", console)


def _line(text: str, console: Console) -> None:
    console.print(words.visible(text), soft_wrap=True)
