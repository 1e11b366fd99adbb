"""What Ctrl-C, SIGTERM, SIGHUP and an ignored SIGHUP do to a training, and what the next start makes of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import training_runs
from commands import CACHE
from training_runs import CHECKPOINT, LOADING, RUN, STEP, VALIDATED_BATCH, assert_exact, lora, signal_before, straight

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


SIGNALS = (
    (signal.SIGINT, LOADING, 1),  # while the model is loaded
    (signal.SIGTERM, VALIDATED_BATCH, 1),  # in the first validation
    (signal.SIGHUP, STEP, 1),  # in the first step
    (signal.SIGINT, STEP, 2),  # in steps, at places off every grid
    (signal.SIGTERM, STEP, 2),
    (signal.SIGINT, VALIDATED_BATCH, 1),  # in the validation of iteration 5, which that step has left to be made
    (signal.SIGHUP, STEP, 1),
    (signal.SIGTERM, CHECKPOINT, 1),  # in a checkpoint
    (signal.SIGINT, VALIDATED_BATCH, 3),  # in the closing validation, after that of iteration 10
)
"""What comes to the command when it is given again and again, each time before that call of its process."""


def test_a_signal_at_any_moment_costs_no_step(project: Path, tiny_model: Path) -> None:
    reached = []
    for number, place, call in SIGNALS:
        stopped = lora(project, *RUN, first=partial(signal_before, number, place, call))
        assert stopped.code == 128 + number, stopped.said
        reached.append(training_runs.steps_trained(project))
    finished = lora(project, *RUN)

    assert finished.code == 0, finished.said
    assert reached == [0, 0, 1, 3, 5, 5, 6, 8, 13]
    # the first was before there was an attempt
    assert [each["to_iteration"] for each in training_runs.attempts(project, "run")] == [*reached[1:], 13]
    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_signal_in_the_last_step_still_finishes_what_needs_no_more_steps(project: Path, tiny_model: Path) -> None:
    lora(project, *RUN, first=partial(signal_before, signal.SIGINT, STEP, 13))
    lora(project, *RUN)

    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_signal_before_there_is_anything_to_save_ends_it_at_once(project: Path, tiny_model: Path) -> None:
    codes = [
        lora(
            project, *RUN, first=partial(training_runs.signal_itself, number, "mlxops.jobs.train.session:prepare", 1)
        ).code
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ]
    lora(project, *RUN)

    # a process that a signal killed is shown by a shell as 128 + its number, too
    assert codes == [130, -signal.SIGTERM, -signal.SIGHUP]
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_stopped_run_says_where_it_is_and_how_to_go_on(project: Path) -> None:
    stopped = lora(project, *RUN, first=partial(signal_before, signal.SIGTERM, STEP, 1))
    attempt = training_runs.attempts(project, "run")[-1]

    assert "stopped by SIGTERM at iteration 1 of 13\nhint: the same command resumes from there" in stopped.said
    assert (attempt["end_reason"], attempt["to_iteration"]) == ("SIGTERM", 1)


def test_a_hangup_under_nohup_changes_nothing(project: Path, tiny_model: Path) -> None:
    ended = lora(project, *RUN, first=_hang_up_under_nohup)

    assert ended.code == 0
    assert_exact(project, straight(tiny_model, *RUN))


def _hang_up_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    training_runs.act_before(STEP, partial(os.kill, os.getpid(), signal.SIGHUP), call=7)


def test_ctrl_c_twice_leaves_at_once_and_damages_nothing(project: Path, tiny_model: Path) -> None:
    left = lora(project, *RUN, first=_press_twice)
    found = training_runs.newest_checkpoint(project, "run")
    lora(project, *RUN)

    assert (left.code, found) == (130, 4)
    assert_exact(project, straight(tiny_model, *RUN))


def _press_twice() -> None:
    signal_before(signal.SIGINT, STEP, 6)
    training_runs.act_before(CHECKPOINT, _press_and_hang, call=2)


def _press_and_hang() -> None:
    while True:  # those within an instant of the first are one request with it
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="MLX compiles nothing here")
def test_ctrl_c_that_also_ends_the_compiler_of_mlx_is_no_failure(project: Path, tiny_model: Path) -> None:
    (project / "g++").write_text(_INTERRUPTED_COMPILER.format(compiler=shutil.which("g++"), once=project / "once"))
    (project / "g++").chmod(0o755)

    stopped = lora(project, *RUN, first=partial(_compile_with, project))
    lora(project, *RUN)

    assert (stopped.code, stopped.said.splitlines()[-1]) == (130, "hint: the same command resumes from there")
    assert_exact(project, straight(tiny_model, *RUN))


_INTERRUPTED_COMPILER = """#!/bin/sh
[ "$1" = --version ] && exec {compiler} "$@"
mkdir {once} && kill -INT 0
exit 1
"""


def _compile_with(folder: Path) -> None:
    """Have MLX compile its kernels again, by the g++ in this folder, in a group of processes as a terminal makes it."""
    os.setpgid(0, 0)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    os.environ["MLXOPS_CACHE"] = str(folder)
    (folder / "blas").symlink_to(CACHE / "blas")
