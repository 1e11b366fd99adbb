"""Bars for work before the screen of a run is there: reading, hashing, fetching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mlxops import words


@contextmanager
def bars(console: Console, *, plain: bool = False, of_bytes: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function `(what, done, total)` that moves a bar a `what`; they are gone when the block ends.

    Not a terminal: nothing is shown, or with `plain` a line where a `what` begins. `of_bytes` shows sizes and a rate.
    """
    counts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(escape(what), total=total)
                if plain and not console.is_interactive:
                    console.print(f"{what}: {words.size(total) if of_bytes else words.count(total)}", soft_wrap=True)
            progress.update(tasks[what], completed=done, total=total)

        yield advance


@contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Say what is waited for, and in a terminal for how long, while the block runs."""
    if not console.is_interactive:
        console.print(text, soft_wrap=True)
        yield
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(escape(text), total=None)
        yield
