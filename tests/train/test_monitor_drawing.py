import errno
import io
import os
import signal
import sys
import termios
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from rich.console import Console
from summary_rows import run_row, untouched_run_row

from mlxops.analysis.trend import Trend
from mlxops.jobs.train.monitor import MachineLoad, Snapshot
from mlxops.ui.terminal import background, live_screen
from mlxops.ui.terminal import console as consoles
from mlxops.ui.terminal.keyboard import Keyboard
from mlxops.ui.train import monitor
from mlxops.ui.train.monitor import View

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def ranges(*points):
    """A curve of (iteration, value), a range for each."""
    return [
        {
            "iteration": iteration,
            "mean": value,
            "low": value,
            "low_iteration": iteration,
            "high": value,
            "high_iteration": iteration,
            "finite": 0 if value is None else 1,
            "count": 1,
        }
        for iteration, value in points
    ]


def attempt(number=1, begun=0, **values):
    return {
        "number": number,
        "start_kind": "exact" if number > 1 else "fresh",
        "from_iteration": begun,
        "heartbeat_at": "2026-11-22T11:59:57.000Z",
        "ended_at": None,
        "end_reason": None,
        "error": None,
        "step_loss": None,
        "device": "cpu",
        **values,
    }


def event(iteration, level="info", message="saved"):
    return {"time": "2026-11-22T11:59:00.000Z", "level": level, "message": message, "iteration": iteration}


def slope(value, lowest, highest):
    return Trend(slope=value, lowest=lowest, highest=highest, points=40, first_iteration=1, last_iteration=400)


def snapshot(run=None, points=40, happenings=3, **values):
    row = run or run_row()
    train = ranges(*((10 * index, 4 - index / points) for index in range(1, points + 1)))
    known = {
        "run": row,
        "runs": [row["name"], "brave-otter"],
        "index": 0,
        "at_work": [],
        "latest": {"learning_rate": 1e-5, "gradient_norm": 1.25, "peak_memory": 3.2e9},
        "attempts": [attempt()] if points else [],
        "checkpoints": [{"iteration": 300, "status": "whole"}] if points else [],
        "gone": [],
        "warnings": [],
        "events": [event(index) for index in range(happenings)],
        "best_at": "2026-11-22T11:58:00.000Z" if points else None,
        "trend": slope(-0.0025, -0.003, -0.001) if points else None,
        "since": 0,
        "last": None,
        "curves": {"train_loss": train, "learning_rate": ranges((10, 1e-5), (400, 1e-5))} if points else {},
        "is_laid_over": False,
        "place": 0,
        "others": [],
    }
    return Snapshot(**{**known, **values})


def nothing_yet():
    return snapshot(run=untouched_run_row(), points=0, happenings=0, latest={})


MACHINE = MachineLoad(
    process_memory=1.5e9,
    process_cpu_percent=143.0,
    cpu_percent=57.0,
    processors=2,
    memory_percent=61.0,
    memory=8e9,
    monitors=1,
)


def frame(shot, width=80, height=24, view=None, machine=None, **options):
    console = consoles.make(file=io.StringIO(), width=width)
    drawn = monitor.render(shot, machine, view or View(), width=width, height=height, now=NOW, **options)
    console.print(drawn)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


class Rows:
    """A source of one snapshot that keeps what was asked of it; `keys` are typed at the first question."""

    def __init__(self, shot, keyboard=None, keys=b""):
        self.shot, self.keyboard, self.keys, self.asked = shot, keyboard, keys, []

    def state(self):
        if self.keys:
            self.keyboard.write(self.keys)
            self.keys = b""
        self.asked.append("rows")
        return self.shot

    def changed(self):
        return (), 1

    def machine(self):
        return MACHINE

    def stand_behind(self):
        self.asked.append("behind")

    def switch(self, steps):
        self.asked.append(("switch", steps))

    def overlay(self):
        self.asked.append("overlay")

    def zoom(self, steps):
        self.asked.append(("zoom", steps))

    def close(self):
        self.is_closed = True


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


def watch(rows, console=None):
    monitor.live(rows, console or screen(), refresh=60, now=lambda: NOW)
    return rows.asked


# a frame -------------------------------------------------------------------------------------------------------------


def test_a_frame_shows_where_the_run_is():
    lines = frame(snapshot(), machine=MACHINE)
    assert lines[:9] == [
        "smollm2-135m-quiet-heron  running   updated 3 seconds ago   run 1 of 2",
        "lora   model models/SmolLM2-135M-Instruct   data data",
        "━━━━━━━━━━━━━━━───────────────────────  400/1,000  40 %  2.5 it/s  4 m 00 s left",
        "train   1.790                        validation  1.890",
        "best    1.850 at 300, 2 minutes ago  process     1.5 GB, 143 % cpu",
        "machine 61 % memory, 57 % cpu        checkpoints 1, last 300",
        "time    2 m 40 s                     tokens      204,800",
        "train loss falling: -0.25 per 100 iterations (95 %: -0.3 to -0.1), 40 reports",
        "loss   · train   ⠤⠤ smoothed   ^ checkpoint",
    ]
    assert lines[-2] == "   1 minute ago  2  saved"
    assert lines[-1] == "q quit   ? help   n next   p previous   space pause   l log   s smooth"


def test_without_a_process_to_look_at_the_last_report_speaks():
    shot = snapshot(latest={"system_memory_percent": 71.0, "cpu_percent": 88.0})
    text = "\n".join(frame(shot, 120, 40, machine=replace(MACHINE, process_memory=None)))
    assert "71 %" in text
    assert "88 %" in text
    assert "57 %" not in text


def test_on_a_gpu_what_the_process_has_there_is_said_beside_it():
    latest = {"active_memory": 6.5e9}
    on_gpu = frame(snapshot(latest=latest, attempts=[attempt(device="gpu")]), machine=MACHINE)
    on_processor = frame(snapshot(latest=latest), machine=MACHINE)

    assert "GPU memory  6.5 GB" in " ".join(on_gpu[4:7])
    assert "GPU memory" not in "".join(on_processor)


def test_until_there_are_rates_the_last_report_tells_of_the_processor():
    first_look = replace(MACHINE, process_cpu_percent=None, cpu_percent=None)
    text = "\n".join(frame(snapshot(latest={"cpu_percent": 88.0}), 120, 40, machine=first_look))
    assert "61 % memory, 88 % cpu" in text


def test_no_run_is_a_sentence():
    assert frame(None)[0] == "no runs yet: `inv lora --model MODEL --data DATA` starts one"


def test_a_run_that_has_not_trained_yet_has_a_frame():
    lines = frame(nothing_yet())
    assert "0/1,000  0 %" in lines[2]
    assert "no losses yet" in lines
    assert "trend: too few reports yet" in lines
    assert len(lines) == 24


def test_a_run_that_was_asked_to_stop_says_so():
    assert "  running, stopping   updated" in frame(snapshot(is_stopping=True))[0]


def test_a_run_that_is_lost_says_so_in_a_word():
    assert "lost   updated" in frame(snapshot(run_row(status="lost", eta_seconds=None)))[0]


def test_a_run_that_failed_says_why():
    shot = snapshot(run_row(status="failed"), attempts=[attempt(end_reason="failed", error="out of memory")])
    assert frame(shot)[1].startswith("ended: failed, out of memory   lora")


def test_an_attempt_that_goes_on_says_from_where():
    shot = snapshot(attempts=[attempt(ended_at="x"), attempt(2, 200)])
    assert frame(shot)[1].startswith("attempt 2, exact from 200   lora")


def test_a_name_that_is_too_long_leaves_room_for_the_status():
    lines = [frame(snapshot(run_row(name="n" * 90)), 80, unicode=unicode)[0] for unicode in (True, False)]
    assert [line.lstrip("n") for line in lines] == [
        "…  running   updated 3 seconds ago",
        "...  running   updated 3 seconds ago",
    ]
    assert {len(line) for line in lines} == {80}


def test_a_run_that_is_kept_from_writing_is_said_to_be_alive():
    at_work = [attempt(pid=4711)]

    said = "process 4711 is alive and trains; it last wrote to the registry 3 seconds ago"
    assert said in frame(snapshot(is_alive=True, attempts=at_work))
    assert said not in frame(snapshot(attempts=at_work))


def test_runs_that_are_gone_are_named():
    assert "brave-otter is gone" in frame(snapshot(gone=["brave-otter"]))
    assert "wren, brave-otter are gone" in frame(snapshot(gone=["wren", "brave-otter"]))


def test_a_frame_that_stays_has_times_of_day_and_says_when_it_was_drawn():
    lines = frame(snapshot(), 100, stays=True)
    text = "\n".join(lines)
    assert lines[0].startswith("smollm2-135m-quiet-heron  running   updated 11:59:57")
    assert lines[2].endswith("2.5 it/s  until 12:04:00")
    assert "1.850 at 300, 11:58:00" in text
    assert lines[-2] == "       11:59:00  2  saved"
    assert lines[-1].endswith("drawn at 12:00:00")
    assert [word for word in ("ago", "just now", " left") if word in text] == []


def test_times_of_day_are_those_of_this_time_zone_and_tell_another_day():
    shot = snapshot(best_at="2026-11-21T11:58:00.000Z")
    console = consoles.make(file=io.StringIO(), width=100)
    there = NOW.astimezone(timezone(timedelta(hours=2)))
    console.print(monitor.render(shot, width=100, height=24, now=there, stays=True))
    assert "updated 13:59:57" in console.file.getvalue()
    assert "1.850 at 300, 2026-11-21 13:58" in console.file.getvalue()


def test_other_runs_at_work_are_named():
    assert frame(snapshot(at_work=["brave-otter", "wren"]), 130)[0].endswith("also at work: brave-otter and 1 more")


def test_a_trend_whose_interval_holds_zero_has_no_direction():
    shot = snapshot(trend=slope(-0.001, -0.003, 0.001))
    assert any(line.startswith("train loss no clear trend: -0.1 per 100 iterations") for line in frame(shot))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (60, 15), (40, 12), (24, 6), (10, 3)])
@pytest.mark.parametrize("shot", [nothing_yet(), snapshot(points=1), snapshot(points=5000, happenings=300)])
def test_a_frame_fits_every_terminal(shot, width, height):
    lines = frame(shot, width, height, machine=MACHINE)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_a_small_terminal_still_has_progress_and_a_chart():
    lines = frame(snapshot(), 40, 12)
    assert lines[1] == "━━━─────  400/1,000  40 %  4 m 00 s left"
    assert any(line.startswith("└") for line in lines)


def test_a_wide_terminal_has_four_small_charts_with_scales():
    names = ("learning_rate", "gradient_norm", "tokens_per_second", "padding_share")
    curves = snapshot().curves | {name: ranges((10, 0.1), (200, 0.3), (400, 0.2)) for name in names}
    lines = frame(snapshot(curves=curves), 120, 40)
    (titles,) = [line for line in lines if line.startswith("learning rate")]
    assert [word for word in ("gradient 1.25", "tokens/s", "padding") if word not in titles] == []
    assert lines[lines.index(titles) + 1].count("┌") == 4


def test_a_frame_in_ascii_has_no_other_letter():
    assert all(line.isascii() for line in frame(snapshot(), 120, 40, unicode=False))


def test_the_modes_stand_in_the_last_line():
    view = View(log=True, paused=True, shown="raw")
    last = frame(snapshot(last=50, is_laid_over=True), view=view)[-1]
    assert last.endswith("paused   logarithmic   raw   last 50   kept on the chart")


def test_help_explains_every_key():
    text = "\n".join(frame(snapshot(), view=View(help=True)))
    assert "half of the iterations, twice as many, all of them" in text


def test_one_frame_is_printed_plain_without_keys():
    console = consoles.make(file=io.StringIO(), width=80)
    monitor.once(Rows(snapshot()), console, NOW)
    assert "\x1b" not in console.file.getvalue()
    assert "q quit" not in console.file.getvalue()


# the full screen -----------------------------------------------------------------------------------------------------


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
