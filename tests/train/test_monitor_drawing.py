import io
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from monitored_runs import MACHINE, NOW, Rows, attempt, nothing_yet, ranges, slope, snapshot
from summary_rows import run_row

from mlxops.ui.terminal import console as consoles
from mlxops.ui.train import monitor
from mlxops.ui.train.monitor import View


def frame(shot, width=80, height=24, view=None, machine=None, **options):
    console = consoles.make(file=io.StringIO(), width=width)
    drawn = monitor.render(shot, machine, view or View(), width=width, height=height, now=NOW, **options)
    console.print(drawn)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


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
    name = "n" * 80 + "-sandy-crane"
    lines = [frame(snapshot(run_row(name=name)), 80, unicode=unicode)[0] for unicode in (True, False)]
    assert [line.strip("n") for line in lines] == [
        f"…{'n' * 19}-sandy-crane  running   updated 3 seconds ago",
        f"...{'n' * 17}-sandy-crane  running   updated 3 seconds ago",
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
