"""A run ends when nothing really improves: when it does, what it leaves, and what the same command says then."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from shared_folders import Shared
from small_trainings import OVERSHOOTING, adapter_bytes, after_step, rows, settings, train_small
from tiny_models import made_tiny
from training_runs import STEP, VALIDATED_BATCH, assert_exact, attempts, copy_project, lora, straight, straight_project

from mlxops import registry
from mlxops.events import Notice, Report, Saved, Step, Stopped, Validation
from mlxops.training import checkpoints
from mlxops.training.decide import Candidate, Request, decide

ROWS = rows(5, shortest=8)


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, whose losses get lower and worse in the course of the runs here."""
    return made_tiny(shared)


# while it trains ------------------------------------------------------------------------------------------------------


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
