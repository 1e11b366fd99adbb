"""The one place where a Console is made, and what it is told about the stream it writes to."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlxops.hints import folded, quoted_for_program

_PLAIN = str.maketrans("…·×±–—━─│┌┐└┘╴╶→", "~.x~--=-|++++--" + ">")


def make(*, stderr: bool = False, file: TextIO | None = None, width: int | None = None) -> Console:
    """A Console on stdout (results), on stderr (progress, hints, errors) or on a given stream.

    Not a terminal, or a dumb one: plain lines without control codes. NO_COLOR is honoured. A stream that is not
    Unicode gets ASCII. Texts are taken as they are: a bracket in a run's name is no markup.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    is_terminal = stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    if not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf"):
        stream = cast("TextIO", _Ascii(stream))
    if stderr:
        stream = cast("TextIO", _Progress(stream))
    return _HouseConsole(
        file=stream, width=width, force_terminal=is_terminal, markup=False, emoji=False, highlight=False, stderr=stderr
    )


class _HouseConsole(Console):
    """A Console whose sentences name the program that was typed, and break at words where nothing else breaks them.

    A Text, which may be a person's, keeps its words. What is printed with an `end` is no sentence and stays as it is.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        said = [quoted_for_program(each) if isinstance(each, str) else each for each in objects]
        if self.is_terminal and options.get("soft_wrap") and "end" not in options:
            said = [_at_words(each, self.width) for each in said]
        super().print(*said, **options)


def _at_words(said: Any, width: int) -> Any:
    """A sentence in lines that fit; a Text with its styles."""
    if isinstance(said, str):
        return folded(said, width)
    if not isinstance(said, Text) or all(cell_len(line) <= width for line in said.plain.split("\n")):
        return said
    lines, place = [], 0
    for line in folded(said.plain, width).split("\n"):
        words = line.lstrip()
        place = said.plain.index(words, place)
        lines.append(Text(line.removesuffix(words)).append_text(said[place : place + len(words)]))
        place += len(words)
    return Text("\n").join(lines)


def is_unicode(console: Console) -> bool:
    """Whether the console can show more than ASCII."""
    return not console.options.ascii_only


class _Ascii:
    """A stream in a narrow encoding: drawing characters become ASCII ones, what else it lacks a `?`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = self._stream.encoding
        return self._stream.write(text.translate(_PLAIN).encode(encoding, "replace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Progress:
    """The stream of progress: where its terminal is gone or its disk full, the work behind it still continues."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
