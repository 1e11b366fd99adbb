"""Chat at a terminal: what is typed is edited, Ctrl-C stops an answer and not the chat, and a terminal may close."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_CODES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\r")


_IN_A_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("mlxops", run_name="__main__")
"""
_EDITOR_READS = b"\x1b[?2004h"
_EDITOR_LEAVES = b"\x1b[?2004l"


def _text(shown: bytes) -> str:
    return _CODES.sub(b"", shown).decode("utf-8", "replace")


class Terminal:
    """A chat in a pseudo-terminal of 80 columns; `wait_for` reads until a text has been shown since the last time."""

    def __init__(self, *options: str) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_TERMINAL, "chat", *options],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(inner)
        self._shown = b""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str) -> str:
        while text not in _text(self._shown):
            self._read(text)
        end = next(end for end in range(len(self._shown) + 1) if text in _text(self._shown[:end]))
        shown, self._shown = self._shown[:end], self._shown[end:]
        return _text(shown)

    def wait_for_the_editor(self) -> None:
        """Read until the line editor reads keys: a Ctrl-D that is typed before is lost with the terminal's own line."""
        while _EDITOR_READS not in self._shown:
            self._read("the line editor")
        self._shown = b""

    def wait_for_an_answer(self) -> None:
        """Read until the line editor has left the line to the answer, and that has begun."""
        while not _text(self._shown.partition(_EDITOR_LEAVES)[2]).strip():
            self._read("an answer")
        self._shown = b""

    def _read(self, wanted: str) -> None:
        ready, _, _ = select.select([self._end], [], [], 60)
        assert ready, f"{wanted!r} was not shown in {self._shown!r}"
        try:
            got = os.read(self._end, 65536)
        except OSError:  # Linux says so where the other end is closed
            got = b""
        assert got, f"{wanted!r} was not shown before the end in {self._shown!r}"
        if b"\x1b[6n" in got:  # the line editor asks where the cursor is
            os.write(self._end, b"\x1b[1;1R")
        self._shown += got

    def close(self) -> None:
        if self._end != -1:
            os.close(self._end)
            self._end = -1

    def end(self) -> int:
        """The exit code, negative for a signal."""
        while self._end != -1 and select.select([self._end], [], [], 60)[0]:
            try:
                if not os.read(self._end, 65536):
                    break
            except OSError:
                break
        return self.process.wait(60)


@pytest.fixture
def terminal(tuned_project: Path) -> Iterator[Terminal]:
    opened = Terminal("tiny", "--max-tokens", "8")
    yield opened
    opened.close()
    opened.process.kill()
    opened.process.wait()


def test_a_chat_is_typed_and_ends_with_ctrl_d(terminal: Terminal, tuned_project: Path) -> None:
    terminal.wait_for("tiny: /help lists the commands, Ctrl-D ends")
    terminal.type("hello\r")
    terminal.wait_for("cut at 8 tokens")
    terminal.type("/stats\r")
    stats = terminal.wait_for("peak memory")
    terminal.wait_for_the_editor()
    terminal.type("\x04")

    assert "last answer   8 tokens" in stats
    assert terminal.end() == 0
    assert "+hello\n" in (tuned_project / ".mlxops" / "chat_history").read_text()


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal: Terminal) -> None:
    terminal.wait_for("Ctrl-D ends")
    terminal.type("/set max_tokens 100000\r")
    terminal.wait_for("max_tokens  100000")
    terminal.type("never stop\r")
    terminal.wait_for_an_answer()
    terminal.type("\x03")
    terminal.wait_for("stopped; what was said is part of the conversation")
    terminal.type("/exit\r")

    assert terminal.end() == 0


def test_a_terminal_that_closes_ends_the_chat(terminal: Terminal, tuned_project: Path) -> None:
    terminal.wait_for("Ctrl-D ends")
    terminal.type("/set max_tokens 100000\r")
    terminal.wait_for("max_tokens  100000")
    terminal.type("never stop\r")
    terminal.wait_for_an_answer()
    terminal.close()

    assert terminal.end() in (-signal.SIGHUP, 129, 0)
    assert list((tuned_project / ".mlxops").glob("crash-*")) == []
