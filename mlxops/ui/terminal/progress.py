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
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mlxops import words

# What has the other unit than the rest of its command.
_BYTES = frozenset({"model files"})
_COUNTS = frozenset({"tensors written", "files hashed"})


class _Amount(ProgressColumn):
    """How much is done of how much: bytes with their rate, or a count."""

    _size, _rate, _count = DownloadColumn(), TransferSpeedColumn(), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        if not task.fields["are_bytes"]:
            return self._count.render(task)
        return Text(" ").join([self._size.render(task), self._rate.render(task)])


@contextmanager
def bars(console: Console, *, plain: bool = False, of_bytes: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function `(what, done, total)` that moves a bar a `what`; they are gone when the block ends.

    Not a terminal: nothing is shown, or with `plain` a line where a `what` begins. `of_bytes` shows sizes and a rate.
    """
    columns = TextColumn("{task.description}"), BarColumn(), _Amount(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                are_bytes = what in _BYTES or (of_bytes and what not in _COUNTS)
                tasks[what] = progress.add_task(escape(what), total=total, are_bytes=are_bytes)
                if plain and not console.is_interactive:
                    console.print(f"{what}: {words.size(total) if are_bytes else words.count(total)}", soft_wrap=True)
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
