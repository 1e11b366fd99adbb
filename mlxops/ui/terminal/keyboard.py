"""Single keys from a terminal, which is as it was once this is over."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any

from mlxops.system import terminal

# What one key sends: a letter, or an escape sequence as a whole, whose letters would else be keys of their own.
_KEY = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|.", re.DOTALL)
_ARROWS = {b"\x1b[C": "right", b"\x1b[D": "left", b"\x1bOC": "right", b"\x1bOD": "left"}


class Keyboard:
    """Keys without waiting for Enter; where standard input is no terminal there are none, and reading only waits."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] = []
        self._typed = b""

    def __enter__(self) -> Keyboard:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
            # Stopped by Ctrl-Z, the shell would be left with the other screen and without an echo.
            settings = terminal.without_suspending(termios.tcgetattr(self._file), self._file)
            termios.tcsetattr(self._file, termios.TCSADRAIN, settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            try:
                termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
            except termios.error:  # the terminal is gone
                self._file = None

    def read(self, timeout: float) -> str:
        """The key pressed within so many seconds, an arrow by its name; an empty text for none and for other keys."""
        if not self._typed:
            self._take(timeout)
        match = _KEY.match(self._typed)
        if match is None:
            return ""
        pressed, self._typed = match[0], self._typed[match.end() :]
        return _ARROWS.get(pressed) or ("" if pressed[:1] == b"\x1b" else pressed.decode("ascii", "ignore"))

    def has(self, *keys: str) -> bool:
        """Whether one of these letters is among the keys that were pressed and not read yet; waits for nothing."""
        self._take(0)
        return any(match[0].decode("latin-1") in keys for match in _KEY.finditer(self._typed))

    def _take(self, timeout: float) -> None:
        ready, _, _ = select.select([] if self._file is None else [self._file], [], [], timeout)
        if ready and self._file is not None:
            typed = os.read(self._file, 64)
            self._typed += typed
            if not typed:  # the terminal is gone: there will be no more keys
                self._file = None
