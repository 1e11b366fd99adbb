"""The lowest validation loss is on disk whenever it was measured, and a run ends when nothing really improves."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from shared_folders import Shared
from small_trainings import adapter_bytes, after_step, rows, settings, train_small
from tiny_models import made_tiny
from training_runs import STEP, VALIDATED_BATCH, assert_exact, attempts, copy_project, lora, straight, straight_project

from mlxops import registry
from mlxops.events import Notice, Report, Saved, Step, Stopped, Validating, Validation
from mlxops.training import checkpoints
from mlxops.training.decide import Candidate, Request, decide

ROWS = rows(5, shortest=8)
NEVER = 100

# lower until iteration 6, and higher from then on
OVERSHOOTING = {"steps_per_eval": 2, "save_every": NEVER, "steps_per_report": 5, "learning_rate": 1e-2, "iters": 15}


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


# early stopping ------------------------------------------------------------------------------------------------------


def test_a_run_ends_after_that_many_validations_without_a_real_improvement(tiny_model, tmp_path):
    config = settings(**OVERSHOOTING, early_stopping=2)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=ROWS)

    assert [each.without_improvement for each in heard.of(Validation)] == [0, 1, 2]
    assert heard.stopped == Stopped(iteration=4, reason="early stopping")
    assert checkpoints.newest(tmp_path)[0].iteration == 4
    said = heard.of(Notice)[-1]
    assert said.message.startswith("stops early: no improvement in 2 validations; the lowest loss is 5.88")


@pytest.mark.slow
def test_an_early_stop_between_the_grids_is_a_full_checkpoint(tiny_model, tmp_path):
    config = OVERSHOOTING | {"grad_accumulation_steps": 3, "lora_dropout": 0.1, "learning_rate": 3e-2}
    whole = train_small(tiny_model, tmp_path / "whole", settings(**config), validation_rows=ROWS)

    stopped = train_small(tiny_model, tmp_path / "on", settings(**config, early_stopping=3), validation_rows=ROWS)
    rest = train_small(tiny_model, tmp_path / "on", settings(**config), validation_rows=ROWS)

    assert stopped.stopped.reason == "early stopping"
    assert stopped.losses + rest.losses == whole.losses
    assert [each.iteration for each in stopped.of(Report) + rest.of(Report)] == [5, 10, 15]
    assert adapter_bytes(tmp_path / "on", 15) == adapter_bytes(tmp_path / "whole", 15)


@pytest.mark.slow
def test_a_run_stopped_at_any_iteration_ends_early_where_the_straight_one_does(tiny_model, tmp_path):
    config = settings(**OVERSHOOTING, early_stopping=4, max_grad_norm=0.5)
    whole = train_small(tiny_model, tmp_path / "whole", config, validation_rows=ROWS)

    parts = [
        train_small(tiny_model, tmp_path / "parts", config, validation_rows=ROWS, stop_at=after_step(iteration))
        for iteration in range(1, 10)
    ]
    rest = train_small(tiny_model, tmp_path / "parts", config, validation_rows=ROWS)

    assert 10 <= whole.stopped.iteration < 15
    assert rest.stopped == whole.stopped
    shown = [each.without_improvement for heard in [*parts, rest] for each in heard.of(Validation)]
    assert shown == [each.without_improvement for each in whole.of(Validation)]
    assert checkpoints.newest(tmp_path / "parts")[0].counters == checkpoints.newest(tmp_path / "whole")[0].counters


@pytest.mark.slow
def test_a_run_that_should_have_ended_by_a_smaller_number_ends_without_a_step(tiny_model, tmp_path):
    train_small(tiny_model, tmp_path, settings(**OVERSHOOTING | {"iters": 4}), validation_rows=ROWS)

    heard = train_small(tiny_model, tmp_path, settings(**OVERSHOOTING, early_stopping=1), validation_rows=ROWS)

    assert (heard.of(Step), heard.stopped) == ([], Stopped(iteration=4, reason="early stopping"))


@pytest.mark.slow
def test_the_last_validation_of_a_target_ends_it_as_finished(tiny_model, tmp_path):
    config = settings(**OVERSHOOTING | {"iters": 4}, early_stopping=2)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=ROWS)

    assert heard.stopped == Stopped(iteration=4, reason="finished")


@pytest.mark.slow
def test_a_closing_validation_is_none_for_a_longer_run(tiny_model, tmp_path):
    config = OVERSHOOTING | {"early_stopping": 4, "steps_per_eval": 2}
    whole = train_small(tiny_model, tmp_path / "whole", settings(**config), validation_rows=ROWS)

    train_small(tiny_model, tmp_path / "parts", settings(**config | {"iters": 7}), validation_rows=ROWS)
    rest = train_small(tiny_model, tmp_path / "parts", settings(**config), validation_rows=ROWS)

    assert rest.stopped == whole.stopped
    assert rest.of(Saved)[0].iteration == 7
    assert checkpoints.read(tmp_path / "parts", 7).validation_loss is None


# what a command makes of it ------------------------------------------------------------------------------------------


def candidate(name: str, **changed: Any) -> Candidate:
    """A run of 50 iterations of which 20 are done."""
    values = {"fingerprint": "f", "settings": {}, "iteration": 20, "target": 50, "closed": False}
    return Candidate(name=name, folder=f"adapters/{name}", **{**values, **changed})


def request(**changed: Any) -> Request:
    """A wish for 50 iterations."""
    return Request(**{"fingerprint": "f", "settings": {}, "target": 50, **changed})


def test_a_stalled_run_is_finished_for_those_who_would_have_it_stop_there():
    stalled = candidate("stalled", stalled=3)

    decided = {each: decide(request(early_stopping=each), [stalled]) for each in (2, 3, 4, None)}

    assert {each: found.kind for each, found in decided.items()} == {
        **dict.fromkeys((2, 3), "finished"),
        **dict.fromkeys((4, None), "resume"),
    }
    assert decided[3].reason == "stopped early at iteration 20 of 50: no improvement in 3 validations"
    assert decided[3].hint == "raise `--early-stopping`, or leave it out, to continue"


def test_a_run_that_is_not_over_goes_before_a_stalled_one():
    runs = [candidate("stalled", stalled=2), candidate("unfinished")]

    assert decide(request(early_stopping=2), runs).run == "unfinished"
    assert decide(request(), runs).run == "stalled"


# through the front door ----------------------------------------------------------------------------------------------

WITHOUT = (*training_runs.RUN, "--steps-per-eval", "2", "--iters", "22")
RUN = (*WITHOUT, "--early-stopping", "2")
"""Ends early at iteration 14, with the best at 10, off the grid of the checkpoints."""


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


def result(project: Path) -> dict:
    """What of a run that ended early is a function of its settings alone."""
    folder = project / "adapters" / "run"
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        series = {
            name: [(row["iteration"], row["value"]) for row in registry.metric_series(db, run["id"], name)]
            for name in ("train_loss", "validation_loss", "validation_standard_error", "gradient_norm")
        }
        kept = registry.checkpoints_of(db, run["id"])
    return {
        "run": {name: run[name] for name in ("status", "iteration", "best_iteration", "best_validation_loss")},
        "series": series,
        "checkpoints": [
            {name: row[name] for name in ("iteration", "adapter_sha256", "validation_loss", "is_best", "status")}
            for row in kept
        ],
        "last": checkpoints.newest(folder)[0].counters,
        "offered": (folder / "adapters.safetensors").read_bytes(),
    }


@pytest.fixture
def stopped(tiny_model: Path, tmp_path: Path) -> Path:
    """A project whose run ended early and was never interrupted."""
    return copy_project(straight_project(tiny_model, *RUN), tmp_path / "stopped")


def events(project: Path, kind: str) -> list[dict]:
    with registry.open_read_only(project / "runs.db") as db:
        found = registry.events_of(db, registry.find_run(db, "run")["id"])
    return [each for each in found if each["kind"] == kind]


@pytest.mark.slow
def test_an_early_stop_is_a_completed_run_that_says_where_the_best_is(stopped: Path, tiny_model: Path) -> None:
    said, found = straight_project(tiny_model, *RUN).with_name("said").read_text(), result(stopped)

    stop, best = found["run"]["iteration"], found["run"]["best_iteration"]
    assert found["run"]["status"] == "completed"
    assert "stops early: no improvement in 2 validations; the lowest loss is " in said
    assert f"at iteration {best}\n" in said
    assert f"run: stopped early at iteration {stop} of 22" in said
    assert [each["end_reason"] for each in attempts(stopped, "run")] == ["early stopping"]
    assert len(events(stopped, "early stopping")) == 1
    assert [row["iteration"] for row in found["checkpoints"] if row["is_best"]] == [best]
    assert best % 4 != 0


@pytest.mark.slow
def test_the_same_command_after_an_early_stop_says_so_and_writes_nothing(stopped: Path) -> None:
    before = training_runs.contents(stopped / "adapters" / "run")

    again = lora(stopped, *RUN)
    preview = lora(stopped, *RUN, "--preview")

    assert (again.code, preview.code) == (0, 0)
    assert "run: already stopped early at iteration" in again.said
    assert "the same command with a larger `--early-stopping`, or without it, continues" in again.said
    assert "no improvement in 2 validations" in " ".join(preview.said.split())
    assert training_runs.contents(stopped / "adapters" / "run") == before
    assert (training_runs.steps_trained(stopped), len(attempts(stopped, "run"))) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--early-stopping", "50")])
def test_a_run_that_ended_early_goes_on_exactly(stopped: Path, tiny_model: Path, option: tuple[str, ...]) -> None:
    went_on = lora(stopped, *WITHOUT, *option)

    assert [each["end_reason"] for each in attempts(stopped, "run")] == ["early stopping", "finished"], went_on.said
    assert training_runs.steps_trained(stopped) == 22 - 14
    assert_exact(stopped, straight(tiny_model, *WITHOUT))


_kill = partial(training_runs.signal_itself, signal.SIGKILL)
_in_the_writer = training_runs.die_in_the_writer

KILLS = (
    # from the beginning: in a step, in a validation, and as the files of the first checkpoint are written and renamed
    *(partial(_kill, STEP, 4), partial(_kill, VALIDATED_BATCH, 4), partial(_in_the_writer, 8)),
    *(partial(_in_the_writer, 20), partial(_in_the_writer, 28)),
    # from 4: before, while and after a checkpoint off the grid is put in place, which only the lowest loss makes
    *(partial(_in_the_writer, 8), partial(_in_the_writer, 21), partial(_in_the_writer, 29)),
    # from 6: one on the grid that is not the best; from 8: after the best; from 10: as one validation is no better
    *(partial(_in_the_writer, 22), partial(_in_the_writer, 29), partial(_kill, STEP, 3), partial(_in_the_writer, 29)),
    # from 12: with all trained and saved, and its end not recorded
    partial(_kill, "mlxops.registry.entries:end_attempt", 1),
)
"""What kills the command when it is given again and again, each time from where the kill before has left it."""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_early_as_if_it_was_not(project: Path, stopped: Path) -> None:
    starts = []
    for kill in KILLS:
        starts.append(training_runs.newest_checkpoint(project, "run"))
        killed = lora(project, *RUN, first=kill)
        assert killed.code == -signal.SIGKILL, killed.said

    ended = lora(project, *RUN)

    assert ended.code == 0, ended.said
    assert starts == [0, 0, 0, 0, 0, 4, 4, 4, 6, 6, 8, 10, 12]
    assert [each["from_iteration"] for each in attempts(project, "run")] == [*starts, 14]
    assert result(project) == result(stopped)


@pytest.mark.slow
def test_a_signal_as_a_run_ends_early_does_not_make_it_interrupted(project: Path, stopped: Path) -> None:
    expected = result(stopped)
    last_batch = 2 * (1 + expected["run"]["iteration"] // 2)

    ended = lora(project, *RUN, first=partial(training_runs.signal_before, signal.SIGTERM, VALIDATED_BATCH, last_batch))

    assert ended.code == 0
    assert result(project) == expected


@pytest.mark.slow
def test_early_stopping_without_a_validation_is_refused(project: Path) -> None:
    refused = lora(project, *RUN, "--val-batches", "0")

    assert refused.code == 2
    assert refused.said.splitlines()[-2:] == [
        "--early-stopping goes by the validation loss, and --val-batches 0 makes none",
        "hint: leave one of the two out",
    ]


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
