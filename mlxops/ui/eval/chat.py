"""A chat on the screen or in a pipe: events in, text out."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlxops.chat.commands import messages_in
from mlxops.chat.events import (
    Answered,
    Compared,
    Comparing,
    Ended,
    Event,
    Facts,
    Note,
    Piece,
    Prefill,
    Problem,
)
from mlxops.errors import Failed
from mlxops.ui.eval.line_editor import LineEditor
from mlxops.ui.eval.markdown import MarkdownStream, printable
from mlxops.ui.terminal import interrupts


class ChatOptions(Protocol):
    """How a chat is to be shown."""

    @property
    def thoughts(self) -> str: ...
    @property
    def markdown(self) -> bool: ...
    @property
    def json(self) -> bool: ...


class Talker(Protocol):
    """What answers."""

    @property
    def config(self) -> ChatOptions: ...
    @property
    def label(self) -> str: ...
    @property
    def history(self) -> Path | None: ...

    def handle(self, text: str) -> Iterator[Event]: ...
    def stop(self) -> None: ...
    def completions(self, text: str) -> Iterable[tuple[str, str]]: ...


def talk(chat: Talker, out: Console, err: Console) -> None:
    """Talk until the end: at a terminal with a line editor, else with the lines of standard input.

    Raises `Failed` where some of those lines could not be done.
    """
    if sys.stdin.isatty() and out.is_terminal:
        _at_a_terminal(chat, out, err)
    else:
        _through_a_pipe(chat, out, err)


def draw(
    events: Iterable[Event], chat: Talker, out: Console, err: Console, *, tells_problems: bool = True
) -> Event | None:
    """Draw events as they come, and return the last one that was none of an answer's pieces."""
    drawing: _Json | _Screen | _Plain
    if chat.config.json:
        drawing = _Json(out, err)
    else:
        drawing = _Screen(chat, out, err) if out.is_terminal else _Plain(chat, out, err)
    last: Event | None = None
    try:
        for event in events:
            if tells_problems or not isinstance(event, Problem):
                drawing.draw(event)
            last = last if isinstance(event, Piece) else event
    finally:
        drawing.end()
    return last


def _at_a_terminal(chat: Talker, out: Console, err: Console) -> None:
    prefill = ""

    def next_prefill() -> str:
        nonlocal prefill
        text, prefill = prefill, ""
        return text

    err.print(Text(f"{chat.label}: /help lists the commands, Ctrl-D ends", style="dim"), soft_wrap=True)
    for text in LineEditor(chat.history, chat.completions).messages(next_prefill):
        with interrupts.stopping(chat.stop):
            last = draw(chat.handle(text), chat, out, err)
        if isinstance(last, Ended):
            return
        if isinstance(last, Prefill):
            prefill = last.text


def _through_a_pipe(chat: Talker, out: Console, err: Console) -> None:
    lines = problems = 0
    lines_in = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    for text in messages_in(lines_in):
        lines += 1
        last = draw(chat.handle(text), chat, out, err)
        problems += isinstance(last, Problem)
        if isinstance(last, Ended):
            break
    if problems:
        messages = "1 message" if lines == 1 else f"{lines:,} messages"
        raise Failed(f"{problems:,} of {messages} could not be answered")


class _Json:
    """One object for each answer; facts and comparisons too."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err

    def draw(self, event: Event) -> None:
        if isinstance(event, (Answered, Compared)):
            self._write(dataclasses.asdict(event))
        elif isinstance(event, Facts):
            self._write(dict(event.rows))
        else:
            _aside(event, self._err)

    def end(self) -> None:
        pass

    def _write(self, value: object) -> None:
        self._out.file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._out.file.flush()


class _Plain:
    """The text of the answers as it is, a line break after each; what else there is goes to stderr."""

    def __init__(self, chat: Talker, out: Console, err: Console) -> None:
        self._shows_thoughts = chat.config.thoughts == "show"
        self._out = out
        self._err = err
        self._is_at_a_start = True

    def draw(self, event: Event) -> None:
        if isinstance(event, Piece):
            if self._shows_thoughts or not event.is_thought:
                self._write(event.text)
        elif isinstance(event, Comparing):
            self.end()
            self._write(f"{'base model' if event.which == 'base' else 'adapter'}: {event.name}\n")
        elif isinstance(event, Facts):
            for line in _aligned(event):
                self._write(line + "\n")
        else:
            if isinstance(event, Answered) and not event.answer:
                self._write("\n")  # one line for each message, also for an empty answer
            self.end()
            _aside(event, self._err)

    def end(self) -> None:
        if not self._is_at_a_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.file.write(text)
        self._out.file.flush()
        self._is_at_a_start = text.endswith("\n")


class _Screen:
    """Markdown and thoughts as they come, two answers side by side, notes dimmed."""

    def __init__(self, chat: Talker, out: Console, err: Console) -> None:
        self._options = chat.config
        self._out = out
        self._err = err
        self._markdown: MarkdownStream | None = None
        self._is_thinking = False
        self._is_in_a_line = False
        self._sides: _Sides | None = None

    def draw(self, event: Event) -> None:
        if isinstance(event, Comparing):
            self._sides = self._sides or _Sides(self._out)
            self._sides.begin(event)
        elif isinstance(event, Piece):
            if self._sides is not None:
                self._sides.add(event)
            elif event.is_thought:
                self._think(event.text)
            else:
                self._say(event.text)
        else:
            self.end()
            if isinstance(event, Facts):
                for line in _aligned(event):
                    self._out.print(Text(line), soft_wrap=True)
            else:
                _aside(event, self._err)

    def end(self) -> None:
        if self._sides is not None:
            self._sides.end()
            self._sides = None
        if self._markdown is not None:
            self._markdown.end()
            self._markdown = None
        if self._is_in_a_line:
            self._out.print()
        self._is_in_a_line = self._is_thinking = False

    def _think(self, text: str) -> None:
        if self._options.thoughts == "hide":
            if not self._is_thinking:
                self._err.print(Text("thinking …", style="dim"))
        else:
            self._out.print(Text(printable(text), style="dim italic"), end="", soft_wrap=True)
            self._is_in_a_line = not text.endswith("\n")
        self._is_thinking = True

    def _say(self, text: str) -> None:
        if self._is_thinking:
            self.end()
        if self._options.markdown:
            self._markdown = self._markdown or MarkdownStream(self._out)
            self._markdown.add(text)
        else:
            self._out.print(Text(printable(text)), end="", soft_wrap=True)
            self._is_in_a_line = not text.endswith("\n")


class _Sides:
    """Two answers side by side, drawn while they come."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._names: list[str] = []
        self._texts: list[str] = []
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def begin(self, event: Comparing) -> None:
        self._names.append(f"{'base model' if event.which == 'base' else 'adapter'}: {event.name}")
        self._texts.append("")

    def add(self, piece: Piece) -> None:
        if not piece.is_thought:
            self._texts[-1] += printable(piece.text)
            self._live.update(self._table(self._console.height - 4), refresh=True)

    def end(self) -> None:
        self._live.stop()
        self._console.print(self._table(None))

    def _table(self, height: int | None) -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), show_edge=False)
        cells = []
        for name, text in zip([*self._names, ""][:2], [*self._texts, ""][:2], strict=True):
            table.add_column(Text(name), ratio=1, overflow="fold")
            wrapped = Text(text.strip()).wrap(self._console, max(self._console.width // 2 - 2, 10))
            cells.append(Text("\n").join(wrapped if height is None else list(wrapped)[-max(height, 1) :]))
        table.add_row(*cells)
        return table


def _aligned(facts: Facts) -> list[str]:
    width = max((cell_len(label) for label, _ in facts.rows), default=0)
    return [f"{label}{' ' * (width - cell_len(label))}  {value}".rstrip() for label, value in facts.rows]


def _aside(event: Event, err: Console) -> None:
    """What is no answer, in words on stderr."""
    if isinstance(event, Note):
        err.print(Text(event.text, style="dim"), soft_wrap=True)
    elif isinstance(event, Problem):
        err.print(Text(event.message), soft_wrap=True)
        if event.hint:
            err.print(Text(f"hint: {event.hint}"), soft_wrap=True)
