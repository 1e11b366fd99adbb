"""The answer to a question: as text or JSON on stdout, as it comes, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.console import Console
from rich.text import Text

from mlxops.chat.events import Answered, Event, Piece, Problem
from mlxops.errors import Failed
from mlxops.ui.eval.markdown import printable
from mlxops.ui.terminal import interrupts


class Output(Protocol):
    """How answers are to be written."""

    @property
    def json(self) -> bool: ...


class Asked(Protocol):
    """What answers."""

    @property
    def config(self) -> Output: ...

    def ask(self, question: str) -> Iterator[Event]: ...
    def stop(self) -> None: ...


def answer(events: Iterable[Event], out: Console, *, as_json: bool) -> Event | None:
    """Write an answer and a line break, without its thoughts; the last event is returned. A problem is not told."""
    last: Event | None = None
    is_at_a_start = True
    for event in events:
        last = event
        if isinstance(event, Piece) and not as_json and not event.is_thought:
            out.file.write(printable(event.text) if out.is_terminal else event.text)
            out.file.flush()
            is_at_a_start = event.text.endswith("\n")
        elif isinstance(event, Answered):
            if as_json:
                out.file.write(json.dumps(dataclasses.asdict(event), ensure_ascii=False) + "\n")
            elif not is_at_a_start or not event.answer:
                out.file.write("\n")
            out.file.flush()
    return last


def ask_on(asked: Asked, out: Console, err: Console) -> None:
    """Answer line after line of standard input until it ends. Raises `Failed` where some could not be answered."""
    questions = problems = 0
    is_terminal = sys.stdin.isatty()
    while True:
        if is_terminal:
            err.print("? ", end="")
        try:
            line = sys.stdin.buffer.readline()
        except KeyboardInterrupt:
            err.print()
            break
        if not line:
            break
        question = line.decode("utf-8", "replace").strip()
        if not question:
            continue
        questions += 1
        if is_terminal:
            with interrupts.stopping(asked.stop):
                last = answer(asked.ask(question), out, as_json=asked.config.json)
        else:
            last = answer(asked.ask(question), out, as_json=asked.config.json)
        if isinstance(last, Problem):
            problems += 1
            err.print(Text(last.message), soft_wrap=True)
    if problems:
        asked_for = "1 question" if questions == 1 else f"{questions:,} questions"
        raise Failed(f"{problems:,} of {asked_for} could not be answered")
