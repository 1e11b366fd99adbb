"""What damaged, lost, moved and read-only files and a full disk do to a run, and what the next start makes of it.

Each run here was killed in step 11, with checkpoints at the iterations 4 and 8, and is to come out as if it was not.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from functools import partial
from pathlib import Path

import pytest
import training_runs
from damage import flip, forget, remove, truncate
from shared_folders import Shared
from training_runs import STEP, assert_exact, attempts, copy_project, lora, straight, straight_project

from mlxops import registry
from mlxops.registry import away

pytestmark = pytest.mark.slow

RUN = (*training_runs.RUN, "--steps-per-eval", "12")
"""No validation between the checkpoints at 4 and 8: the lowest loss would make one of its own."""

ADAPTER, STATE = "0000008_adapters.safetensors", "0000008_state.safetensors"


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, shared: Shared) -> Path:
    """A copy of a project with a run that was killed in step 11."""

    def train(folder: Path) -> None:
        made = training_runs.make_project(folder / "project", tiny_model)
        ended = lora(made, *RUN, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 11))
        assert ended.code == -signal.SIGKILL

    return copy_project(shared("killed-in-step-11", train) / "project", tmp_path / "trained")


@pytest.fixture
def folder(project: Path) -> Path:
    """The run's folder."""
    return project / "adapters" / "run"


def empty(name: str, folder: Path) -> None:
    """Leave a file without content."""
    (folder / name).write_bytes(b"")


# damaged checkpoints -------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    project: Path, folder: Path, tiny_model: Path
) -> None:
    every = [(damage, name) for name in (ADAPTER, STATE) for damage in (flip, truncate, empty, remove)]
    for damage, name in every:
        damage(name, folder)
        # killed as the checkpoint at 8 is there again
        ended = lora(project, *RUN, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 5))
        assert f"the checkpoint at iteration 8 cannot be used and is set aside: {name}" in ended.said
        aside = folder / f"{STATE if (name, damage) != (STATE, remove) else ADAPTER}.corrupt"
        assert (aside.exists(), attempts(project, "run")[-1]["from_iteration"]) == (True, 4)
        for path in folder.glob("*.corrupt"):
            path.unlink()
    lora(project, *RUN)

    with registry.open_read_only(project / "runs.db") as db:
        events = registry.events_of(db, registry.find_run(db, "run")["id"])
    assert [event["iteration"] for event in events if event["kind"] == "damaged"] == [8] * len(every)
    assert_exact(project, straight(tiny_model, *RUN))


def test_without_a_whole_checkpoint_it_begins_anew_and_says_so(project: Path, folder: Path, tiny_model: Path) -> None:
    flip(STATE, folder)
    flip("0000004_adapters.safetensors", folder)

    ended = lora(project, *RUN)

    assert "resumes from the beginning" in ended.said
    assert attempts(project, "run")[-1]["start_kind"] == "fresh"
    assert_exact(project, straight(tiny_model, *RUN))


# lost and moved ------------------------------------------------------------------------------------------------------


def test_a_run_whose_registry_is_gone_is_taken_from_its_folder(project: Path, tiny_model: Path) -> None:
    expected = straight(tiny_model, *RUN)
    forget(project)

    ended = lora(project, *RUN)
    got = training_runs.result(project, "run")

    assert (ended.code, attempts(project, "run")[-1]["from_iteration"]) == (0, 8)
    assert [got[part] for part in ("last", "offered", "run")] == [expected[part] for part in ("last", "offered", "run")]
    assert got["metrics"] == {key: value for key, value in expected["metrics"].items() if key[1] > 8}


def test_a_finished_run_whose_registry_is_gone_is_finished(tmp_path: Path, tiny_model: Path) -> None:
    project = copy_project(straight_project(tiny_model, *RUN), tmp_path / "finished")
    folder = project / "adapters" / "run"
    before = training_runs.contents(folder)
    forget(project)

    ended = lora(project, *RUN)

    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
    assert (ended.code, run["status"], run["iteration"]) == (0, "completed", 13)
    assert training_runs.contents(folder) == before


def test_a_run_whose_folder_is_gone_begins_anew_and_says_so(project: Path, folder: Path, tiny_model: Path) -> None:
    shutil.rmtree(folder)

    ended = lora(project, *RUN)

    assert "its folder 'adapters/run' is gone: it starts from the beginning" in ended.said
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_project_that_was_moved_goes_on_exactly(project: Path, tiny_model: Path, tmp_path: Path) -> None:
    moved = project.rename(tmp_path / "moved elsewhere – für später")

    ended = lora(moved, *RUN)

    last = attempts(moved, "run")[-1]
    assert (ended.code, last["from_iteration"], last["start_kind"]) == (0, 8, "exact")
    assert_exact(moved, straight(tiny_model, *RUN))


# full disks and read-only folders ------------------------------------------------------------------------------------


WRITING = {
    "in the adapter": ("mlxops.tensors:write", 1),
    "in the state": ("mlxops.tensors:write", 2),
    "in the copy on offer": ("shutil:copyfile", 1),
}
"""Where the first checkpoint stops: the nth call of a function."""


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(
    project: Path, folder: Path, tiny_model: Path
) -> None:
    before = training_runs.contents(folder, "*.safetensors")

    for place, call in WRITING.values():
        failed = lora(project, *RUN, first=partial(training_runs.fill_the_disk_during, place, call))
        assert failed.code == 1
        assert "the checkpoint of iteration 12 could not be written to" in failed.said
        assert "make room there" in failed.said
        assert training_runs.contents(folder, "*.safetensors") == before
    lora(project, *RUN)

    assert_exact(project, straight(tiny_model, *RUN))


def test_a_registry_that_cannot_be_written_to_the_end_costs_no_step(project: Path, tiny_model: Path) -> None:
    failed = lora(project, *RUN, first=partial(_fill_the_disk_at_a_report, project / "runs.db-wal"))
    lora(project, *RUN)

    assert failed.code == 1
    assert "runs.db" in failed.said
    assert_exact(project, straight(tiny_model, *RUN))


_readers: list[sqlite3.Connection] = []  # what this process keeps open


def _fill_the_disk_at_a_report(log: Path) -> None:
    away.END_PATIENCE = 0.3  # seconds, of which each takes as long as this training

    def fill() -> None:
        # what another program reads keeps the log from being emptied, which would make room
        reader = sqlite3.connect(log.with_name("runs.db"), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchall()
        _readers.append(reader)
        training_runs.limit_files(log.stat().st_size)

    training_runs.act_before("mlxops.registry.entries:record_report", fill, call=1)


def test_a_read_only_folder_is_named_and_nothing_in_it_changes(project: Path, folder: Path, tiny_model: Path) -> None:
    before = training_runs.contents(folder)

    for read_only in (".", "adapters/run", ".mlxops"):
        changed = [project / read_only, *(path for path in (project / read_only).iterdir() if path.is_file())]
        modes = {path: path.stat().st_mode for path in changed}
        for path in changed:
            path.chmod(0o555 if path.is_dir() else 0o444)
        failed = lora(project, *RUN, first=training_runs.obey_permissions)
        for path in changed:
            path.chmod(modes[path])
        assert (failed.code, "bug" in failed.said) == (1, False), failed.said
        assert str(project if read_only == "." else project / read_only) in failed.said
        assert training_runs.contents(folder) == before
    lora(project, *RUN)

    assert_exact(project, straight(tiny_model, *RUN))


# what exactness depends on -------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="MLX compiles nothing here")
def test_going_on_without_the_compiler_of_mlx_is_said_to_be_inexact(project: Path) -> None:
    lora(project, *RUN, first=partial(_without_a_compiler, project))

    last = attempts(project, "run")[-1]

    assert (last["start_kind"], last["start_note"]) == ("inexact", "kernels: fused → one by one")


def _without_a_compiler(project: Path) -> None:
    os.environ["PATH"] = str(project / "data")
