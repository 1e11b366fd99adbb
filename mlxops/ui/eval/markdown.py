"""Markdown that is drawn while it comes: finished blocks stay, the one at work is drawn again with each piece."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
# What would move the cursor, change colours or ring, wherever a model got it from.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """The text without what controls a terminal; line breaks and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


class MarkdownStream:
    """Draws one answer; `end` leaves it on the screen as a whole."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""
        self._live: Live | None = None

    def add(self, text: str) -> None:
        """Draw the answer with this piece at its end."""
        self._text += printable(text)
        finished, self._text = split(self._text)
        if finished.strip():
            self._stop()
            self._print(finished)
        if self._text.strip():
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(_End(self._text), refresh=True)

    def end(self) -> None:
        """Draw what is left, for good."""
        self._stop()
        if self._text.strip():
            self._print(self._text)
        self._text = ""

    def _print(self, text: str) -> None:
        self._console.print(_markdown(text))

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _End:
    """As much of the end of a text as the screen has lines for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_markdown(self._text), options, pad=False)
        for line in lines[-max(console.height - 2, 1) :]:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> Markdown:
    return Markdown(text, code_theme="ansi_dark", hyperlinks=False)


def split(text: str) -> tuple[str, str]:
    """The blocks of a text that are finished, and the one that may continue. A blank line inside code ends nothing."""
    end = place = 0
    fence = ""
    for line in _lines(text):
        place += len(line)
        match = _FENCE.match(line)
        if fence:
            is_closing = match is not None and match[1].startswith(fence) and not line.strip().strip(fence[0])
            if is_closing and line.endswith("\n"):
                fence, end = "", place
        elif match is not None:
            fence = match[1]
        elif line.endswith("\n") and not line.strip():
            end = place
    return text[:end], text[end:]


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines(keepends=True) if text else ()
