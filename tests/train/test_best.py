"""The lowest validation loss is on disk whenever it was measured, and no later end of the run costs it."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from shared_folders import Shared
from small_trainings import OVERSHOOTING, adapter_bytes, rows, settings, train_small
from tiny_models import made_tiny
from training_runs import STEP, assert_exact, attempts, copy_project, lora, straight, straight_project

from mlxops import registry
from mlxops.events import Saved, Validating, Validation
from mlxops.training import checkpoints

ROWS = rows(5, shortest=8)


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, whose losses get lower and worse in the course of the runs here."""
    return made_tiny(shared)


def lowest_so_far(heard) -> list[int]:
    """Where a validation was lower than all before it."""
    best, found = float("inf"), []
    for each in heard.of(Validation):
        if each.loss < best:
            best = each.loss
            found.append(each.iteration)
    return found


# best ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_lowest_validation_is_saved_whatever_save_every_says(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(**OVERSHOOTING), validation_rows=ROWS)

    lowest = [each for each in lowest_so_far(heard) if each]
    assert lowest == [2, 4, 6]
    assert [each.iteration for each in heard.of(Saved)] == [*lowest, 15]


@pytest.mark.slow
def test_the_model_before_training_is_the_first_to_be_better_than(tiny_model, tmp_path):
    config = settings(**OVERSHOOTING | {"learning_rate": 0.1, "iters": 4})

    heard = train_small(tiny_model, tmp_path, config, validation_rows=ROWS)

    assert lowest_so_far(heard) == [0]
    assert [each.iteration for each in heard.of(Saved)] == [4]


@pytest.mark.slow
def test_an_iteration_is_saved_once_though_it_is_the_best_and_on_the_grid(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(**OVERSHOOTING | {"save_every": 2}), validation_rows=ROWS)

    assert [each.iteration for each in heard.of(Saved)] == [2, 4, 6, 8, 10, 12, 14, 15]


@pytest.mark.slow
def test_a_checkpoint_has_the_validation_loss_of_its_own_weights_or_none(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(**OVERSHOOTING | {"save_every": 3}), validation_rows=ROWS)

    measured = {each.iteration: each.loss for each in heard.of(Validation)}
    assert {each.iteration: each.validation_loss for each in heard.of(Saved)} == {
        each: measured.get(each) for each in (2, 3, 4, 6, 9, 12, 15)
    }
    assert checkpoints.read(tmp_path, 9).validation_loss is None


@pytest.mark.slow
def test_saving_the_best_trains_the_same_weights(tiny_model, tmp_path):
    config = OVERSHOOTING | {"lora_dropout": 0.1, "grad_accumulation_steps": 3}
    train_small(tiny_model, tmp_path / "best", settings(**config), validation_rows=ROWS)

    train_small(tiny_model, tmp_path / "none", settings(**config))

    assert adapter_bytes(tmp_path / "best", 15) == adapter_bytes(tmp_path / "none", 15)


@pytest.mark.slow
def test_a_best_whose_validation_was_stopped_is_saved_when_the_run_goes_on(tiny_model, tmp_path):
    config = settings(**OVERSHOOTING)
    whole = train_small(tiny_model, tmp_path / "whole", config, validation_rows=ROWS)

    first = train_small(
        tiny_model,
        tmp_path / "parts",
        config,
        validation_rows=ROWS,
        stop_at=lambda event: isinstance(event, Validating) and (event.iteration, event.done) == (6, 1),
    )
    rest = train_small(tiny_model, tmp_path / "parts", config, validation_rows=ROWS)

    losses = {each.iteration: each.validation_loss for each in [*first.of(Saved), *rest.of(Saved)]}
    assert first.of(Saved)[-1].validation_loss is None
    assert losses == {each.iteration: each.validation_loss for each in whole.of(Saved)}
    assert adapter_bytes(tmp_path / "parts", 6) == adapter_bytes(tmp_path / "whole", 6)


# a finished run that is reopened ------------------------------------------------------------------------------------

UP_TO_10 = (*training_runs.RUN, "--iters", "10")
UP_TO_15 = (*training_runs.RUN, "--iters", "15")


@pytest.mark.slow
@pytest.mark.parametrize(
    "instants",
    [
        # with half of the copy on offer, then with all files beside those in place, then with one of them in place
        pytest.param((12, 20, 21), id="one file in place"),
        pytest.param((23,), id="both files in place"),
        pytest.param((25,), id="all three in place"),
        pytest.param((29,), id="with its row"),
    ],
)
def test_reopening_a_finished_run_at_any_instant_costs_no_checkpoint(
    tiny_model: Path, tmp_path: Path, instants: tuple[int, ...]
) -> None:
    project, options = copy_project(straight_project(tiny_model, *UP_TO_10), tmp_path / "trained"), UP_TO_15

    for instant in instants:
        killed = lora(project, *options, first=partial(training_runs.die_in_the_writer, instant))
        assert (killed.code, training_runs.newest_checkpoint(project, "run")) == (-signal.SIGKILL, 10), killed.said
    lora(project, *options)

    assert [each["from_iteration"] for each in attempts(project, "run")[1:]] == [10] * (len(instants) + 1)
    assert_exact(project, straight(tiny_model, *options))


# beyond an earlier end -----------------------------------------------------------------------------------------------

_kill = partial(training_runs.signal_itself, signal.SIGKILL)

WHOLE_UPDATES = (*training_runs.RUN, "--grad-accumulation-steps", "1")
"""Ends at 13 with a validation that no longer run has, of weights that each longer one has."""

BEYOND = (*WHOLE_UPDATES, "--iters", "20")


def best_shown(project: Path) -> dict[str, Any]:
    """What the registry shows as the best of `run`, and the curve that this may be no point of."""
    with registry.open_read_only(project / "runs.db") as db:
        (run,) = db.rows("SELECT best_iteration, best_validation_loss FROM run_summary WHERE name = 'run'")
        kept = db.rows("SELECT iteration, validation_loss FROM best_checkpoint WHERE run = 'run'")
        curve = db.rows("SELECT iteration FROM metric WHERE run = 'run' AND name = 'validation_loss'")
        number = registry.find_run(db, "run")["id"]
        return {**run, "checkpoints": kept, "at": registry.time_of_best(db, number), "curve": curve}


def ended_at_13(tiny_model: Path, folder: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    """A project whose run is finished at 13, the best of which is its closing validation; and that best."""
    project = copy_project(straight_project(tiny_model, *WHOLE_UPDATES, *options), folder / "trained")
    best = best_shown(project)
    assert best.pop("curve") == [{"iteration": each} for each in (0, 5, 10, 13)]
    assert (best["best_iteration"], [each["iteration"] for each in best["checkpoints"]]) == (13, [13])
    return project, best


@pytest.mark.slow
def test_what_closed_an_earlier_end_is_the_best_until_the_longer_run_has_finished(
    tiny_model, tmp_path, mlxops, monkeypatch
):
    project, best = ended_at_13(tiny_model, tmp_path)
    shown = []

    for stop in (
        partial(_kill, STEP, 1),
        partial(training_runs.signal_before, signal.SIGTERM, STEP, 1),
        partial(_kill, STEP, 1),
    ):
        stopped = lora(project, *BEYOND, first=stop)
        shown.append(best_shown(project))
    monkeypatch.chdir(project)
    (listed,) = json.loads(mlxops("checkpoints --run run --json")[1])["groups"]
    branched = lora(project, *WHOLE_UPDATES, "--name", "child", "--branch", "--from", "run:best", "--iters", "14")
    ended = lora(project, *BEYOND)

    assert stopped.code == -signal.SIGKILL
    assert shown == [best | {"curve": [{"iteration": each} for each in (0, 5, 10)]}] * 3
    assert "a branch of run at iteration 13; its optimizer state is kept" in branched.said
    assert ended.code == 0, ended.said
    assert_exact(project, straight(tiny_model, *BEYOND))
    (at_13,) = [each for each in listed["items"] if each["is_best"]]
    assert (at_13["iteration"], at_13["validation_loss"]) == (13, best["best_validation_loss"])


@pytest.mark.slow
def test_a_closing_update_takes_its_validation_with_it(tiny_model, tmp_path):
    slower = (*training_runs.RUN, "--learning-rate", "0.001")
    project = copy_project(straight_project(tiny_model, *slower), tmp_path / "trained")
    before = best_shown(project)

    lora(project, *slower, "--iters", "20", first=partial(_kill, STEP, 1))
    as_it_was = best_shown(project)
    lora(project, *slower, "--iters", "20", first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 1))
    reopened = best_shown(project)

    assert (before["best_iteration"], as_it_was["best_iteration"], reopened["best_iteration"]) == (13, 13, 10)


@pytest.mark.slow
def test_a_kept_closing_costs_the_longer_run_none_of_its_own_best(tiny_model, tmp_path):
    keeping = ("--keep-last", "1", "--learning-rate", "0.03")
    project, best = ended_at_13(tiny_model, tmp_path, *keeping)

    lora(project, *BEYOND, *keeping, first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 2))
    assert best_shown(project)["checkpoints"] == best["checkpoints"]
    lora(project, *BEYOND, *keeping)

    assert_exact(project, straight(tiny_model, *BEYOND, *keeping))
