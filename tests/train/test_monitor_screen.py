"""The full screen of the monitor: keys, signals, looks that take long, and a terminal that is as it was."""

import errno
import io
import os
import signal
import sys
import termios
import threading
from dataclasses import replace

import pytest
from monitored_runs import MACHINE, NOW, Rows, screen, snapshot, watch
from rich.console import Console

from mlxops.ui.terminal import background, live_screen
from mlxops.ui.terminal import console as consoles
from mlxops.ui.terminal.keyboard import Keyboard
from mlxops.ui.train import monitor


@pytest.fixture
def keyboard(monkeypatch):
    """A terminal as standard input: what is written to `keyboard` is typed."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as file, os.fdopen(ours, "r+b", buffering=0) as typed:
        monkeypatch.setattr("sys.stdin", file)
        before = termios.tcgetattr(file)
        yield typed
        assert termios.tcgetattr(file) == before


def test_keys_ask_for_other_rows_and_leave(keyboard):
    console = screen()
    asked = watch(Rows(snapshot(), keyboard, b"np\x1b[C\x1b[Do+-0q"), console)
    written = console.file.getvalue()
    assert [each for each in asked if each not in ("rows", "behind")] == [
        *(("switch", steps) for steps in (1, -1, 1, -1)),
        "overlay",
        *(("zoom", steps) for steps in (1, -1, 0)),
    ]
    assert asked.count("rows") == 9
    assert written.startswith("\x1b[?1049h")
    assert written.endswith("\x1b[?25h\x1b[?1049l")


def test_keys_change_how_it_is_drawn_and_fetch_nothing(keyboard):
    console = screen()
    assert watch(Rows(snapshot(), keyboard, b"l s?q"), console) == ["behind", "rows"]
    words = ("logarithmic", "paused", "raw", "quit; the training")
    assert [word for word in words if word not in console.file.getvalue()] == []


def test_a_key_closes_the_help_and_does_nothing_else(keyboard):
    assert watch(Rows(snapshot(), keyboard, b"?nq")) == ["behind", "rows"]


def test_paused_another_run_is_still_fetched(keyboard):
    assert watch(Rows(snapshot(), keyboard, b" nq")) == ["behind", "rows", ("switch", 1), "rows"]


def test_a_function_key_is_not_the_letters_it_sends(keyboard):
    assert watch(Rows(snapshot(), keyboard, b"\x1bOQ\x1b[15~\x1b[1;5Cnq"))[2:] == [("switch", 1), "rows"]


class Growing(Rows):
    """A source that was written to at each look; at the third a run begins, and at the fifth `q` is typed."""

    looks = 0

    def __init__(self, keyboard, busy, processors=1e-12, monitors=1):
        super().__init__(snapshot(), keyboard)
        self.taken = {"cpu_percent": busy, "processors": processors, "monitors": monitors}

    def changed(self):
        self.looks += 1
        if self.looks == 5:
            self.keyboard.write(b"q")
        return (self.looks >= 3,), self.looks

    def machine(self):
        return replace(MACHINE, **self.taken)


def test_every_change_is_drawn_where_the_processors_have_time(keyboard):
    rows = Growing(keyboard, busy=60.0)
    monitor.live(rows, screen(), refresh=0.01, now=lambda: NOW)
    assert rows.asked.count("rows") == 5


# so few processors that drawing's share of them never comes together, and so many that it is there at once
@pytest.mark.parametrize(
    ("processors", "monitors", "drawn"), [(1e-12, 1, 2), (1e12, 1, 5), (1e12, 1e24, 2)], ids=["few", "many", "shared"]
)
def test_where_the_processors_are_busy_only_a_run_that_begins_or_ends_is_drawn_at_once(
    keyboard, processors, monitors, drawn
):
    rows = Growing(keyboard, 95.0, processors, monitors)
    monitor.live(rows, screen(), refresh=0.01, now=lambda: NOW)
    assert rows.asked.count("rows") == drawn


@pytest.mark.parametrize(("busy", "refresh", "stays"), [(60.0, 0.01, False), (95.0, 0.01, True), (60.0, 60, True)])
def test_a_frame_has_ages_only_where_another_comes_soon(keyboard, busy, refresh, stays):
    console, rows = screen(), Rows(snapshot(), keyboard, b"q")
    rows.machine = lambda: replace(MACHINE, cpu_percent=busy)
    monitor.live(rows, console, refresh=refresh, now=lambda: NOW)
    assert ("drawn at 12:00:00" in console.file.getvalue()) == stays
    assert ("3 seconds ago" in console.file.getvalue()) != stays


@pytest.fixture
def blocked(monkeypatch):
    """What a source waits for that does not answer; it is given up at once."""
    monkeypatch.setattr(background, "_PATIENCE", 0.01)
    monkeypatch.setattr(background, "_LEAVING", 0.01)
    waiting = threading.Event()
    yield waiting
    waiting.set()


def test_q_leaves_while_a_look_takes_long(keyboard, blocked):
    console, rows = screen(), Rows(snapshot())
    rows.state = lambda: (keyboard.write(b"nq"), blocked.wait())
    watch(rows, console)
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143)], ids=str)
def test_a_signal_leaves_while_a_look_takes_long(keyboard, blocked, number, code):
    rows, ended = Rows(snapshot()), None
    rows.state = lambda: (os.kill(os.getpid(), number), blocked.wait())
    try:
        watch(rows)
    except SystemExit as error:
        ended = error.code
    assert ended == code


def test_what_was_asked_is_told_when_it_is_over(keyboard):
    rows = Rows(snapshot(), keyboard, b"q")
    watch(rows)
    assert rows.is_closed


def test_a_key_that_comes_while_a_look_takes_long_is_not_lost(keyboard):
    with Keyboard() as keys:
        keyboard.write(b"n\x1b[Cx")
        assert not keys.has("q", "Q")
        assert [keys.read(60) for _ in range(3)] == ["n", "right", "x"]


@pytest.mark.parametrize("none", [0, 255], ids=["on Linux", "on a Mac"])
def test_no_key_suspends_while_keys_are_read(keyboard, monkeypatch, none):
    monkeypatch.setattr(os, "fpathconf", lambda descriptor, name: {"PC_VDISABLE": none}[name])

    def suspends():
        return termios.tcgetattr(sys.stdin)[6][termios.VSUSP]

    before = suspends()
    with Keyboard():
        inside = suspends()

    assert (before, inside) == (b"\x1a", bytes([none]))


def test_ctrl_c_leaves_cleanly(keyboard):
    console, rows = screen(), Rows(snapshot())
    rows.state = lambda: os.kill(os.getpid(), signal.SIGINT)
    watch(rows, console)
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)], ids=str
)
def test_a_signal_leaves_with_its_code_and_a_clean_terminal(keyboard, number, code):
    console, rows, before = screen(), Rows(snapshot()), signal.getsignal(number)
    rows.state = lambda: os.kill(os.getpid(), number)
    with pytest.raises(SystemExit) as ended:
        watch(rows, console)
    assert ended.value.code == code
    assert signal.getsignal(number) == before
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_a_signal_whose_exception_was_swallowed_still_leaves(keyboard, monkeypatch):
    monkeypatch.setattr(live_screen, "_TICK", 0.01)

    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            return NOW

    with pytest.raises(SystemExit) as ended:
        monitor.live(Rows(snapshot()), screen(), refresh=60, now=swallow)
    assert ended.value.code == 143


def test_an_error_leaves_a_clean_terminal(keyboard):
    console, rows = screen(), Rows(snapshot())
    rows.machine = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        watch(rows, console)
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_a_terminal_that_is_gone_ends_it_as_a_hangup_does(keyboard):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(SystemExit) as ended:
        watch(Rows(snapshot()), Console(file=Gone(), force_terminal=True, width=80, height=24))
    assert ended.value.code == 129


def test_not_a_terminal_gets_one_frame():
    console = consoles.make(file=io.StringIO(), width=80)
    rows = Rows(snapshot())
    monitor.live(rows, console, refresh=60, now=lambda: NOW)
    assert console.file.getvalue().count("running   updated") == 1
    assert rows.asked == ["rows"]
