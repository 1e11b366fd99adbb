"""Which run a command resumes, extends, leaves alone or refuses, and what happens when several work at once."""

from __future__ import annotations

import platform
import signal
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import training_runs
from shared_folders import Shared
from training_runs import (
    CHECKPOINT,
    RUN,
    STEP,
    VALIDATED_BATCH,
    Command,
    assert_exact,
    copy_project,
    lora,
    pause_before,
    straight,
    straight_project,
)  # fmt: skip

from mlxops import registry

pytestmark = pytest.mark.slow

BEGINNING = "mlxops.training.loop:train"
EXTENDED = (*RUN, "--iters", "15")
COSINE = ("--lr-schedule", "cosine_decay")


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


@pytest.fixture
def finished(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of a project whose run is finished at iteration 13."""
    return copy_project(straight_project(tiny_model, *RUN), tmp_path / "copied")


@pytest.fixture
def begun(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of a project whose run is finished at iteration 2."""
    return copy_project(straight_project(tiny_model, *RUN, "--iters", "2"), tmp_path / "copied")


def runs(project: Path) -> list[dict[str, Any]]:
    """The runs of a project as a person lists them, the oldest first."""
    with registry.open_read_only(project / "runs.db") as db:
        return registry.list_runs(db)[::-1]


def recorded(project: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of the registry by table."""
    with registry.open_read_only(project / "runs.db") as db:
        tables = [row["name"] for row in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: db.rows(f'SELECT * FROM "{table}"') for table in tables}


# several at once -----------------------------------------------------------------------------------------------------


def test_a_second_command_on_a_run_names_the_first_and_leaves(project: Path, tiny_model: Path) -> None:
    reached, go_on = training_runs.gates()
    first = Command(project, RUN, partial(pause_before, STEP, 6, reached, go_on))
    reached.wait()

    second = lora(project, *RUN)
    go_on.set()

    assert first.wait().code == 0
    assert second.code == 3
    assert f"the run 'run' is being worked on by process {first.pid} on {platform.node()} since " in second.said
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_second_command_leaves_a_checkpoint_that_is_being_written_alone(project: Path, tiny_model: Path) -> None:
    reached, go_on = training_runs.gates()
    first = Command(project, RUN, partial(_pause_in_the_writer, reached, go_on))
    reached.wait()

    second = lora(project, *RUN)
    go_on.set()

    assert (first.wait().code, second.code) == (0, 3)
    assert_exact(project, straight(tiny_model, *RUN))


def _pause_in_the_writer(reached: Any, go_on: Any) -> None:
    training_runs.act_before(CHECKPOINT, partial(pause_before, "mlxops.files:sync", 1, reached, go_on), call=1)


def test_a_command_that_comes_as_a_run_ends_does_not_train_it_again(project: Path, tiny_model: Path) -> None:
    reached, go_on = training_runs.gates()
    first = Command(project, RUN, partial(pause_before, STEP, 6, reached, go_on))
    reached.wait()
    looked, decide = training_runs.gates()
    second = Command(project, RUN, partial(pause_before, "mlxops.jobs.train.candidates:decide", 2, looked, decide))
    looked.wait()

    go_on.set()
    first.wait()
    decide.set()

    assert second.wait().code == 3
    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


def test_two_equal_commands_at_the_same_moment_make_one_run(project: Path) -> None:
    options = [option for option in RUN if option not in ("--name", "run")]
    reached, go_on = training_runs.gates()
    both = [Command(project, options, partial(pause_before, BEGINNING, 1, reached, go_on)) for _ in range(2)]

    wait([command.sentinel for command in both])
    go_on.set()

    assert sorted(command.wait().code for command in both) == [0, 3]
    assert [run["status"] for run in runs(project)] == ["completed"]


def test_four_different_runs_at_once_all_complete(project: Path, tiny_model: Path) -> None:
    names = ["run", "second", "third", "fourth"]
    others = [[*RUN, "--name", name, "--seed", str(seed), "--iters", "5"] for seed, name in enumerate(names)][1:]
    commands = [Command(project, options) for options in (RUN, *others)]

    codes = [command.wait().code for command in commands]

    assert codes == [0, 0, 0, 0]
    assert {run["name"]: run["status"] for run in runs(project)} == dict.fromkeys(names, "completed")
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_command_killed_before_it_made_its_folder_leaves_no_second_run(project: Path) -> None:
    options = [option for option in (*RUN, "--iters", "2") if option not in ("--name", "run")]
    lora(
        project,
        *options,
        first=partial(training_runs.signal_itself, signal.SIGKILL, "mlxops.jobs.train.claim:_take_hold", 1),
    )

    ended = lora(project, *options)

    assert ended.code == 0
    assert [run["status"] for run in runs(project)] == ["completed"]


# finished, extended, shortened ---------------------------------------------------------------------------------------


def test_the_same_command_on_a_finished_run_writes_nothing(finished: Path) -> None:
    files, rows = training_runs.contents(finished / "adapters" / "run"), recorded(finished)

    again = lora(finished, *RUN)

    assert again.code == 0
    assert "already at iteration 13 of 13" in again.said
    assert (training_runs.contents(finished / "adapters" / "run"), recorded(finished)) == (files, rows)


@pytest.mark.parametrize(
    ("first", "more"),
    [
        # off the grids of the report and the accumulation, and on that of the validation; off all of them
        pytest.param("10", (), id="10"),
        pytest.param("13", (), id="13"),
        pytest.param("13", ("--grad-accumulation-steps", "1"), id="13 without accumulation"),
    ],
)
def test_a_target_raised_equals_a_straight_run(
    tmp_path: Path, tiny_model: Path, first: str, more: tuple[str, ...]
) -> None:
    project = copy_project(straight_project(tiny_model, *RUN, *more, "--iters", first), tmp_path / "copied")

    extended = lora(project, *EXTENDED, *more)

    assert extended.code == 0
    assert training_runs.steps_trained(project) == 15 - int(first)
    assert_exact(project, straight(tiny_model, *EXTENDED, *more))


def test_a_target_raised_after_its_closing_was_cut_short_equals_a_straight_run(project: Path, tiny_model: Path) -> None:
    lora(project, *RUN, first=partial(training_runs.signal_before, signal.SIGINT, VALIDATED_BATCH, 7))
    lora(project, *EXTENDED)

    assert training_runs.steps_trained(project) == 15
    assert_exact(project, straight(tiny_model, *EXTENDED))


def test_an_extension_that_was_killed_equals_a_straight_run(finished: Path, tiny_model: Path) -> None:
    lora(finished, *EXTENDED, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 2))
    lora(finished, *EXTENDED)

    assert_exact(finished, straight(tiny_model, *EXTENDED))


@pytest.fixture
def cut_short(tmp_path: Path, tiny_model: Path, shared: Shared) -> Path:
    """A copy of a project whose run was stopped in the validation that closes it."""

    def train(folder: Path) -> None:
        project = training_runs.make_project(folder / "project", tiny_model)
        lora(project, *RUN, first=partial(training_runs.signal_before, signal.SIGINT, VALIDATED_BATCH, 7))

    return copy_project(shared("cut-short", train) / "project", tmp_path / "copied")


@pytest.mark.parametrize(
    "instants",
    [
        # with the three files beside those in place, half on the disk and wholly, then with one of them in place
        pytest.param((15, 20, 21), id="one file in place"),
        pytest.param((23,), id="both files in place"),
        pytest.param((25,), id="all three in place"),
        pytest.param((28,), id="without its row"),
    ],
)
def test_a_closing_cut_short_twice_never_loses_its_checkpoint(
    cut_short: Path, tiny_model: Path, instants: tuple[int, ...]
) -> None:
    codes = [
        lora(cut_short, *RUN, first=partial(training_runs.die_in_the_writer, instant)).code for instant in instants
    ]
    lora(cut_short, *RUN)

    assert codes == [-signal.SIGKILL] * len(instants)
    assert training_runs.steps_trained(cut_short) == 0
    assert_exact(cut_short, straight(tiny_model, *RUN))


def test_a_lower_target_is_reached_already(finished: Path) -> None:
    before = training_runs.contents(finished / "adapters" / "run")

    ended = lora(finished, *RUN, "--iters", "9")

    assert ended.code == 0
    assert "already at" in ended.said
    assert training_runs.contents(finished / "adapters" / "run") == before


# refused -------------------------------------------------------------------------------------------------------------


def test_a_schedule_over_the_whole_training_refuses_another_target_and_says_why(project: Path) -> None:
    lora(project, *RUN, *COSINE, "--iters", "2")

    refused = lora(project, *EXTENDED, *COSINE)

    assert refused.code == 3
    assert "schedule_iterations: was 2, now 15" in refused.said
    assert "hint: its learning rate runs over the whole training" in refused.said


@pytest.mark.parametrize(
    ("option", "value", "difference"),
    [
        ("--lora-rank", "4", "lora_rank: was 8, now 4"),
        ("--learning-rate", "0.01", "learning_rate: was 0.003, now 0.01"),
        ("--optimizer", "sgd", "optimizer: was adam, now sgd"),
    ],
)
@pytest.mark.parametrize("place", [("--name", "run"), ("--adapter-path", "adapters/run")])
def test_other_settings_for_the_same_run_are_refused_by_name(
    begun: Path, place: tuple[str, str], option: str, value: str, difference: str
) -> None:
    options = [each for each in RUN if each not in ("--name", "run")]

    refused = lora(begun, *options, *place, option, value)

    assert refused.code == 3
    assert difference in refused.said.splitlines()[1]
    assert len(runs(begun)) == 1


def test_other_data_for_the_same_run_are_refused(begun: Path) -> None:
    train = begun / "data" / "train.jsonl"
    train.write_text(train.read_text().replace("And 10?", "Or 10?"))

    refused = lora(begun, *RUN)

    assert refused.code == 3
    assert "data_identity: was" in refused.said
