"""Faults of every kind at every step of saving: after each the same command resumes, and loses nothing.

A training that was stopped after step 11 is started again and again, each time with the fault
one call later, until it ends without one. Then it has to be, bit for bit, the training that nothing befell. How many
faults struck is printed at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import faults
import pytest
import training_runs
from commands import count_faults
from training_runs import CHECKPOINT, LOADING, RUN, STEP, assert_exact, lora, straight

from mlxops import registry

pytestmark = pytest.mark.slow

INSTANTS = 29
"""The instants of writing one checkpoint, up to its committed row."""

Fault = Callable[[Path, int], None]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """The faults that struck and were survived, by kind; said when all tests are over."""
    counted: Counter[str] = Counter()
    yield counted
    count_faults(request.config, counted)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a run that saved and stopped after step 11, which leaves two steps and two checkpoints to make.

    Its process was killed behind the checkpoint: of the attempt nothing says that it ended.
    """
    project = training_runs.make_project(tmp_path_factory.mktemp("stopped") / "project", tiny_model)
    assert lora(project, *RUN, first=stop_and_die).code == -signal.SIGKILL
    return project


def stop_and_die() -> None:
    """Have this process get a SIGTERM in step 11, and be killed where it would say that it ended."""
    training_runs.signal_before(signal.SIGTERM, STEP, 11)
    training_runs.signal_itself(signal.SIGKILL, "mlxops.registry.entries:end_attempt", 1)


@pytest.fixture
def copy(tmp_path: Path, stopped: Path) -> Callable[[], Path]:
    """Makes copies of that project."""
    numbers = count()
    return lambda: Path(shutil.copytree(stopped, tmp_path / f"trained-{next(numbers)}", symlinks=True))


def endure(copy: Callable[[], Path], fault: Fault, code: int, expected: dict[str, Any], most: int | None = None) -> int:
    """Give the command again and again, with a fault at every call in turn, and return how many struck.

    It continues in one project while there is anything left to train, then in a new copy.
    """
    project, is_new, struck = copy(), True, 0
    for call in count(1) if most is None else range(1, most + 1):
        while True:
            before = whole(project)
            ended = lora(project, *RUN, first=partial(fault, project, call))
            has_struck = faults.has_struck(project)
            assert ended.code in (0, code if has_struck else 0), ended.said
            assert "bug" not in ended.said
            assert before.items() <= whole(project).items()
            if ended.code == 0:
                assert_exact(project, expected)
            if has_struck or is_new:
                break
            project, is_new = copy(), True
        if not has_struck:
            return struck
        struck, is_new = struck + 1, False
    assert lora(project, *RUN).code == 0
    assert_exact(project, expected)
    return struck


def whole(project: Path) -> dict[str, bytes]:
    """The files of a run's checkpoints that are in their place."""
    return {path.name: path.read_bytes() for path in (project / "adapters" / "run").glob("[0-9]*.safetensors")}


# while saving --------------------------------------------------------------------------------------------------------


def test_sigkill_at_every_instant_of_the_writer(
    copy: Callable[[], Path], tiny_model: Path, tally: Counter[str]
) -> None:
    struck = endure(copy, faults.kill_in_the_writer, -signal.SIGKILL, straight(tiny_model, *RUN), INSTANTS)

    tally["kills in the writer"] += struck
    assert struck == INSTANTS


@pytest.mark.parametrize(("place", "least"), [("os:fsync", 10), ("os:replace", 7), ("os:open", 12)])
def test_a_disk_that_fails_at_any_call(
    copy: Callable[[], Path], tiny_model: Path, tally: Counter[str], place: str, least: int
) -> None:
    struck = endure(copy, partial(faults.fail_to_read_or_write, place), 1, straight(tiny_model, *RUN))

    tally[f"EIO in {place.replace(':', '.')}"] += struck
    assert struck >= least


LARGE = (*RUN, "--lora-rank", "192")
"""A run whose adapters are larger than its registry."""

SIZES = {
    8_192: "runs.db': disk I/O error",
    300_000: "the checkpoint of iteration 12 could not be written",  # in the adapter
    450_000: "the checkpoint of iteration 12 could not be written",  # at the beginning of the state
    780_000: "the checkpoint of iteration 12 could not be written",  # at its end
    1_500_000: "the checkpoint of iteration 13 could not be written",  # at the end of its state
}
"""What stops where no file may grow beyond a size."""


def test_a_disk_that_is_full_at_any_size(tmp_path: Path, tiny_model: Path, tally: Counter[str]) -> None:
    project = training_runs.make_project(tmp_path / "large", tiny_model)
    lora(project, *LARGE, first=faults.killed_in_step(11))
    # what the kill left in the log of the registry, which is longer than the adapter
    registry.open_registry(project / "runs.db").close()

    for size, said in SIZES.items():
        before = whole(project)
        failed = lora(project, *LARGE, first=partial(faults.fill_the_disk, project, size))
        tally["full disks"] += faults.has_struck(project)
        assert (failed.code, said in failed.said) == (1, True), failed.said
        assert before.items() <= whole(project).items()
    lora(project, *LARGE)

    assert_exact(project, straight(tiny_model, *LARGE))


# clocks and identities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "call", "seconds"),
    [(LOADING, 1, -86_400), (STEP, 2, -86_400), (STEP, 2, 86_400), (CHECKPOINT, 1, -86_400)],
)
def test_a_clock_that_is_set_while_training(
    copy: Callable[[], Path], tiny_model: Path, tally: Counter[str], place: str, call: int, seconds: int
) -> None:
    project = copy()

    ended = lora(project, *RUN, first=partial(faults.set_the_clock, seconds, place, project, call))

    tally["clocks set"] += faults.has_struck(project)
    assert ended.code == 0
    assert abs(hours_the_end_is_off(project) - seconds / 3600) < 1
    assert_exact(project, straight(tiny_model, *RUN))


def hours_the_end_is_off(project: Path) -> float:
    """How far in the future the last attempt has ended, in hours; in the past below 0."""
    with registry.open_read_only(project / "runs.db") as db:
        (row,) = db.rows(
            "SELECT 24 * (julianday(ended_at) - julianday('now')) AS hours FROM attempts ORDER BY id DESC LIMIT 1"
        )
    return float(row["hours"])


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"pid": os.getpid()}, id="pid reuse"),
        pytest.param({"pid": os.getpid(), "boot_id": "another", "process_started": "as old"}, id="another boot"),
        pytest.param({"heartbeat_at": "2999-01-01T00:00:00.000Z"}, id="a heartbeat of the future"),
        pytest.param({"host": "ibis", "heartbeat_at": "2999-01-01T00:00:00.000Z"}, id="another machine"),
    ],
)
def test_what_an_attempt_says_of_its_process_never_keeps_a_run_from_going_on(
    copy: Callable[[], Path], tiny_model: Path, tally: Counter[str], columns: dict[str, Any]
) -> None:
    project = copy()
    newest = training_runs.newest_checkpoint(project, "run")
    if "process_started" in columns:
        columns = {**columns, "process_started": registry.process_start(os.getpid())}
    with registry.open_registry(project / "runs.db") as db:
        for name, value in columns.items():
            db.connection.execute(f"UPDATE attempts SET {name} = ?", (value,))

    ended = lora(project, *RUN)

    tally["wrong identities"] += 1
    lost, last = training_runs.attempts(project, "run")
    assert (ended.code, lost["end_reason"], last["from_iteration"]) == (0, "lost", newest)
    assert_exact(project, straight(tiny_model, *RUN))
