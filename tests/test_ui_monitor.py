import io
import os
import signal
import termios
from datetime import UTC, datetime

import pytest
from rich.console import Console
from test_ui_show import run_row, untouched_run_row

from mlxops.ui import console as consoles
from mlxops.ui import monitor

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def snapshot(run=None, points=40, happenings=3):
    row = run or run_row()
    return {
        "run": row,
        "curve": [
            {"iteration": 10 * index, "train_loss": 4 - index / points, "validation_loss": None}
            for index in range(1, points + 1)
        ],
        "latest": {"learning_rate": 1e-5, "gradient_norm": 1.25, "peak_memory": 3.2e9},
        "events": [
            {
                "time": "2026-11-22T11:59:00.000Z",
                "level": "info",
                "kind": "saved",
                "message": "saved",
                "iteration": index,
            }
            for index in range(happenings)
        ],
        "attempts": [],
        "checkpoints": [{"iteration": 300}],
        "runs": [row, run_row(id=2)],
        "index": 0,
    }


def nothing_yet():
    empty = snapshot(run=untouched_run_row(), points=0, happenings=0)
    return {**empty, "latest": {}, "checkpoints": [], "runs": [empty["run"]]}


def frame(shot, width=80, height=24, **options):
    console = consoles.make(file=io.StringIO(), width=width)
    console.print(monitor.render(shot, width=width, height=height, now=NOW, **options))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def keyboard(monkeypatch):
    """A terminal as standard input: what is written to `keyboard` is typed."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as file, os.fdopen(ours, "r+b", buffering=0) as typed:
        monkeypatch.setattr("sys.stdin", file)
        before = termios.tcgetattr(file)
        yield typed
        assert termios.tcgetattr(file) == before


def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)


def test_a_frame_shows_where_the_run_is():
    lines = frame(snapshot())
    assert lines[:7] == [
        "smollm2-135m-20261122-quiet-heron  running   updated 3 seconds ago   run 1 of 2",
        "lora   model models/SmolLM2-135M-Instruct   data data",
        "━━━━━━━━━━━━━━━━━━━─────────────────────────────  400/1,000  40 %  4 m 00 s left",
        "train         1.790 falling  validation 1.890    best        1.850 at 300",
        "tokens/s      1,234          tokens     204,800  time        2 m 40 s",
        "learning rate 1e-05          gradient   1.25     memory      3.2 GB",
        "epoch         2              best train 1.700    checkpoints 1, last 300",
    ]
    assert lines[7] == "loss   ⠤⠤ train"
    assert lines[-2] == "   1 minute ago  2  saved"
    assert lines[-1] == "q quit   n next   p previous   space pause   l log scale"


def test_no_run_is_a_sentence():
    assert frame(None)[0] == "no runs yet: inv lora --model MODEL --data DATA starts one"


def test_a_run_that_has_not_trained_yet_has_a_frame():
    lines = frame(nothing_yet())
    assert "0/1,000  0 %" in lines[2]
    assert "no losses yet" in lines
    assert len(lines) == 24


def test_a_run_that_is_lost_says_so_in_a_word():
    assert "lost   updated" in frame(snapshot(run_row(status="lost", eta_seconds=None)))[0]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (24, 6), (10, 3)])
def test_a_frame_fits_every_terminal(width, height):
    lines = frame(snapshot(points=5000, happenings=300), width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_a_frame_in_ascii_has_no_other_letter():
    assert all(line.isascii() for line in frame(snapshot(), unicode=False))


def test_the_modes_stand_in_the_last_line():
    assert frame(snapshot(), log=True, paused=True)[-1].endswith("paused   logarithmic")


def test_one_frame_is_printed_plain_without_keys():
    console = consoles.make(file=io.StringIO(), width=80)
    monitor.once(snapshot(), console, NOW)
    assert "\x1b" not in console.file.getvalue()
    assert "q quit" not in console.file.getvalue()


def watch(keyboard, keys, console, shot):
    """The monitor while these keys are typed; gives what it asked for."""
    asked = []

    def fetch():
        if "fetch" not in asked:
            keyboard.write(keys)
        asked.append("fetch")
        return shot

    monitor.live(fetch, console, refresh=60, changed=lambda: 1, switch=asked.append, now=lambda: NOW)
    return asked


def test_keys_switch_the_run_and_leave(keyboard):
    console = screen()
    asked = watch(keyboard, b"nnp\x1b[C\x1b[Dl q", console, snapshot())
    written = console.file.getvalue()
    assert asked == ["fetch", 1, "fetch", 1, "fetch", -1, "fetch", 1, "fetch", -1, "fetch"]
    assert "paused" in written
    assert "logarithmic" in written
    assert written.startswith("\x1b[?1049h")
    assert written.endswith("\x1b[?25h\x1b[?1049l")


def test_rows_are_fetched_once_while_nothing_is_written(keyboard):
    assert watch(keyboard, b"llllq", screen(), snapshot()) == ["fetch"]


def test_ctrl_c_leaves_cleanly(keyboard):
    console = screen()

    def interrupted():
        raise KeyboardInterrupt

    monitor.live(interrupted, console, refresh=60, changed=lambda: 1, switch=print, now=lambda: NOW)
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_with_its_code_and_a_clean_terminal(keyboard, number, code):
    console, before = screen(), signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        monitor.live(
            lambda: os.kill(os.getpid(), number), console, refresh=60, changed=lambda: 1, switch=print, now=lambda: NOW
        )
    assert ended.value.code == code
    assert signal.getsignal(number) == before
    assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_not_a_terminal_gets_one_frame():
    console = consoles.make(file=io.StringIO(), width=80)
    monitor.live(snapshot, console, refresh=60, changed=lambda: 1, switch=print, now=lambda: NOW)
    assert console.file.getvalue().count("running   updated") == 1
