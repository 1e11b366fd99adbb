import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from mlxops import events
from mlxops.analysis.pace import Pace
from mlxops.ui.terminal import console as consoles
from mlxops.ui.train import live

METRICS = {
    "train_loss": 2.345,
    "tokens_per_second": 1234.4,
    "learning_rate": 1e-5,
    "gradient_norm": 1.25,
    "peak_memory": 3.2e9,
}


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def terminal(width=80, height=24):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def report(iteration, loss=2.345):
    return events.Report(iteration=iteration, epoch=1, metrics={**METRICS, "train_loss": loss})


def validation(iteration, loss):
    return events.Validation(iteration=iteration, loss=loss, standard_error=0.031, rows=9, tokens=99, seconds=1.0)


def last_frame(console):
    """The lines of the last drawing: what stays in the scrollback."""
    text = console.file.getvalue().split("\x1b[?25l")[-1].split("\x1b[2K")[-1]
    return text.replace("\x1b[?25h", "").rstrip("\n").split("\n")


def everything():
    yield events.Started(iteration=0, target=1000, batches_per_epoch=10, trained_tokens=0)
    yield events.Step(iteration=10, loss=2.3, tokens=512, seconds=0.1)
    yield report(10)
    yield events.Validating(iteration=10, done=1, total=2)
    yield validation(10, 2.41)
    yield events.Saved(
        iteration=10,
        adapter_file="0000010_adapters.safetensors",
        state_file="0000010_state.safetensors",
        bytes=12_300_000,
        adapter_sha256="",
        state_sha256="",
        train_loss=2.3,
        validation_loss=2.41,
        seconds=0.1,
    )
    yield events.Skipped(iteration=11, reason="the loss is not finite", origins=("data/train.jsonl:12",), in_a_row=1)
    yield events.Notice(kind="memory", message="memory is short", level="warning")
    yield events.Stopped(iteration=11, reason="signal", signal_name="SIGINT")


def run_through(console, happenings, clock, **options):
    settings = {"run_name": "quiet-heron", "target": 1000, "iteration": 0, "lines": ["training on 62 %"], **options}
    with live.screen(console, clock=clock, **settings) as screen:
        for event in happenings:
            clock.now += 1
            screen.show(event)


def test_a_pipe_gets_one_plain_line_for_each_event_that_matters():
    console = consoles.make(file=io.StringIO())
    run_through(console, everything(), Clock())
    assert console.file.getvalue().splitlines() == [
        "training on 62 %",
        "iteration 10/1000  loss 2.345  tokens/s 1234  learning rate 1e-05  gradient norm 1.25  memory 3.2 GB"
        "  left 1 m 38 s",
        "iteration 10/1000  validation loss 2.410 ± 0.031  best 2.410 at 10",
        "iteration 10/1000  saved 0000010_adapters.safetensors  12.3 MB",
        "iteration 11/1000  skipped: the loss is not finite (data/train.jsonl:12)",
        "warning: memory is short",
        "iteration 11/1000  stopped by SIGINT",
    ]


def test_nothing_happening_leaves_only_the_opening_lines():
    console = consoles.make(file=io.StringIO())
    run_through(console, [], Clock())
    assert console.file.getvalue() == "training on 62 %\n"


def test_the_best_validation_counts_the_attempts_before():
    console = consoles.make(file=io.StringIO())
    curve = [{"iteration": 5, "train_loss": 3.0, "validation_loss": 2.0}]
    run_through(console, [validation(10, 2.41)], Clock(), curve=curve)
    assert "best 2.000 at 5" in console.file.getvalue()


def test_the_last_state_of_the_screen_stays():
    console = terminal()
    run_through(console, everything(), Clock())
    lines = [line.rstrip() for line in last_frame(console)]
    assert lines[:5] == [
        "quiet-heron  stopped by SIGINT",
        "────────────────────────────────────────────────────────  10/1,000  1 %  10 it/s",
        "train         2.345  validation 2.410 ± 0.031  best   2.410 at 10",
        "tokens/s      1,234  tokens     -              time   9.0 s",
        "learning rate 1e-05  gradient   1.25           memory 3.2 GB",
    ]
    assert "loss   ⠤⠤ train   o validation" in lines
    assert lines[-2:] == [
        "iteration 11 skipped: the loss is not finite (data/train.jsonl:12)",
        "warning: memory is short",
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 5)])
def test_the_screen_fits_the_terminal_and_long_runs(width, height):
    console = terminal(width, height)
    notices = [events.Notice(kind="x", message="y" * 300) for _ in range(50)]
    run_through(console, [*(report(index, 2.0 + index % 7) for index in range(5000)), *notices], Clock())
    lines = last_frame(console)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_a_spike_of_long_ago_survives_in_the_curve_that_is_kept():
    console = terminal()
    state = live._State("r", Pace(0, 10, Clock()), ())
    for index in range(20_000):
        state.show(report(index, 99.0 if index == 777 else 2.0))
    assert len(state.curve) < 5000
    assert (777, 99.0) in [(row["iteration"], row["train_loss"]) for row in state.curve]
    assert console.file.getvalue() == ""


def test_time_left_is_measured_from_this_attempt_alone():
    console, clock = terminal(), Clock()
    resumed = [
        events.Started(iteration=900, target=1000, batches_per_epoch=10, trained_tokens=0),
        events.Step(iteration=901, loss=2.0, tokens=1, seconds=0.5),
    ]
    run_through(console, resumed, clock, iteration=900)
    assert "2 it/s  50 s left" in console.file.getvalue()


def test_figures_are_there_from_the_first_step_on():
    console = terminal()
    begun = events.Started(iteration=0, target=100, batches_per_epoch=10, trained_tokens=0)
    run_through(console, [begun, events.Step(iteration=1, loss=2.5, tokens=300, seconds=2.0)], Clock())

    facts = " ".join(" ".join(last_frame(console)[2:5]).split())
    assert "train 2.500" in facts
    assert "tokens/s 150" in facts
    assert last_frame(console)[1].endswith("1/100  1 %  0.5 it/s  3 m 18 s left")


def test_after_a_validation_it_trains_again():
    console = terminal()
    run_through(console, [events.Validating(iteration=0, done=1, total=1), validation(0, 5.0)], Clock())

    assert last_frame(console)[0] == "quiet-heron  first step"


def test_a_long_notice_breaks_at_words():
    console = terminal()
    words = " ".join(["checkpoint"] * 12)
    run_through(console, [events.Notice(kind="x", message=words)], Clock())

    assert [line.strip() for line in last_frame(console)[-2:]] == [" ".join(["checkpoint"] * n) for n in (7, 5)]


def test_a_training_that_was_asked_to_stop_says_so_until_it_has():
    console = terminal()
    asked = events.Notice(kind="stopping", message="finishing this step, then saving")
    run_through(console, [asked, events.Validating(iteration=1, done=1, total=9)], Clock())

    assert last_frame(console)[0] == "quiet-heron  stopping: validating 1 of 9"


def test_the_time_of_the_attempts_before_and_their_reports_count():
    console = terminal()
    recent = [(10 * index, 3.0 - index / 10) for index in range(1, 10)]
    run_through(console, [report(100, 2.0)], Clock(), iteration=90, recent=recent, seconds=3600.0)
    drawn = "\n".join(last_frame(console))

    assert "time 1 h 00 m" in " ".join(drawn.split())
    assert "train loss falling: -1 per 100 iterations (95 %: -1 to -1), 10 reports" in drawn


def test_the_screen_uses_the_width_of_the_terminal():
    console = terminal(140, 40)
    run_through(console, [report(index, 2.0 + index % 7) for index in range(100)], Clock())

    assert {len(line) for line in last_frame(console) if line[:1] in "━─"} == {140}
    assert max(len(line) for line in last_frame(console) if "⠤" in line or "⡇" in line) > 130


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_cursor_is_back_whatever_ends_the_training(error):
    console = terminal()

    def failing():
        yield report(10)
        raise error

    with pytest.raises(error):
        run_through(console, failing(), Clock())
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_an_ascii_terminal_gets_an_ascii_screen():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    console = Console(file=consoles._Ascii(stream), force_terminal=True, width=80, height=24, color_system=None)
    run_through(console, everything(), Clock())
    assert b"#" in stream.buffer.getvalue() or b"....." in stream.buffer.getvalue()


def test_restore_shows_the_cursor_of_a_terminal():
    ours, theirs = os.openpty()
    subprocess.run(
        [sys.executable, "-c", "from mlxops.ui.train import live; live.restore()"], stderr=theirs, check=True
    )
    os.close(theirs)
    written = os.read(ours, 100)
    os.close(ours)
    assert written.startswith(b"\x1b[?25h")


def test_restore_writes_nothing_into_a_pipe():
    done = subprocess.run(
        [sys.executable, "-c", "from mlxops.ui.train import live; live.restore()"], capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
