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
from training_runs import CHECKPOINT, LOADING, RUN, STEP, VALIDATED_BATCH, assert_exact, lora, signal_before, straight

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


@pytest.mark.parametrize(
    ("number", "place", "call"),
    [
        pytest.param(signal.SIGINT, LOADING, 1, id="SIGINT while the model is loaded"),
        pytest.param(signal.SIGTERM, VALIDATED_BATCH, 1, id="SIGTERM in the first validation"),
        pytest.param(signal.SIGHUP, STEP, 1, id="SIGHUP in the first step"),
        pytest.param(signal.SIGINT, STEP, 7, id="SIGINT in a step"),
        pytest.param(signal.SIGTERM, STEP, 7, id="SIGTERM in a step"),
        pytest.param(signal.SIGHUP, STEP, 7, id="SIGHUP in a step"),
        pytest.param(signal.SIGINT, VALIDATED_BATCH, 3, id="SIGINT in a validation"),
        pytest.param(signal.SIGTERM, CHECKPOINT, 2, id="SIGTERM in a checkpoint"),
        pytest.param(signal.SIGINT, VALIDATED_BATCH, 7, id="SIGINT in the closing validation"),
    ],
)
def test_a_signal_at_any_moment_costs_no_step(
    project: Path, tiny_model: Path, number: signal.Signals, place: str, call: int
) -> None:
    stopped = lora(project, *RUN, first=partial(signal_before, number, place, call))
    finished = lora(project, *RUN)

    assert (stopped.code, finished.code) == (128 + number, 0)
    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_signal_in_the_last_step_still_finishes_what_needs_no_more_steps(project: Path, tiny_model: Path) -> None:
    lora(project, *RUN, first=partial(signal_before, signal.SIGINT, STEP, 13))
    lora(project, *RUN)

    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_before_there_is_anything_to_save_ends_it_at_once(
    project: Path, tiny_model: Path, number: signal.Signals, code: int
) -> None:
    # a process that a signal killed is shown by a shell as 128 + its number, too
    ended = lora(
        project, *RUN, first=partial(training_runs.signal_itself, number, "mlxops.jobs.train.session:prepare", 1)
    )
    lora(project, *RUN)

    assert ended.code == code
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_stopped_run_says_where_it_is_and_how_to_go_on(project: Path) -> None:
    stopped = lora(project, *RUN, first=partial(signal_before, signal.SIGTERM, STEP, 7))
    attempt = training_runs.attempts(project, "run")[-1]

    assert "stopped by SIGTERM at iteration 7 of 13\nhint: the same command resumes from there" in stopped.said
    assert (attempt["end_reason"], attempt["to_iteration"]) == ("SIGTERM", 7)


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
    (folder / "blas").symlink_to(training_runs.CACHE / "blas")
