"""The validation of a run's earlier end, once the run goes on: what counts for the best, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_rows import new_attempt, new_run, save

from mlxops import registry
from mlxops.registry import Registry


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Registry]:
    with registry.open_registry(tmp_path / "runs.db") as opened:
        yield opened


def best(db: Registry) -> tuple[object, ...]:
    """Where the best of the run was measured, its loss, and the checkpoints marked as the best."""
    row = registry.find_run(db, "heron")
    marked = [each["iteration"] for each in registry.checkpoints_of(db, row["id"]) if each["is_best"]]
    return row["best_iteration"], row["best_validation_loss"], marked


def validated(db: Registry) -> tuple[registry.CreatedRun, int]:
    """A run at work, and its attempt, which validated and saved at 10 and at 13."""
    run = new_run(db)
    attempt = new_attempt(db, run.id)
    for iteration, loss in ((10, 3.0), (13, 2.0)):
        registry.record_validation(db, run.id, attempt, iteration=iteration, loss=loss, standard_error=0.25)
        save(db, run.id, attempt, iteration, validation_loss=loss)
    return run, attempt


def test_the_validation_of_an_earlier_end_counts_for_the_best_until_the_run_has_finished(db: Registry) -> None:
    run, attempt = validated(db)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=13)

    longer = new_attempt(db, run.id, 13, closing=["validation_loss", "validation_standard_error"])
    begun = best(db)
    save(db, run.id, longer, 13, validation_loss=None)
    reopened, curve = best(db), registry.metric_series(db, run.id, "validation_loss")
    (kept,) = [each for each in registry.checkpoints_of(db, run.id) if each["closing_elapsed_ms"] is not None]
    registry.mark_checkpoint(db, run.id, 13, "missing")
    missing = best(db)
    registry.mark_checkpoint(db, run.id, 13, "whole")
    registry.end_attempt(db, longer, reason="finished", status="completed", iteration=20)

    assert begun == reopened == (13, 2.0, [13])
    assert [point["iteration"] for point in curve] == [10]
    assert (kept["iteration"], kept["validation_loss"], kept["closing_standard_error"]) == (13, 2.0, 0.25)
    assert missing == best(db) == (10, 3.0, [10])
    assert registry.checkpoints_of(db, run.id)[-1]["validation_loss"] is None


def test_an_earlier_end_that_was_trained_again_from_before_it_leaves_no_validation(db: Registry) -> None:
    run, attempt = validated(db)
    save(db, run.id, None, 5, validation_loss=4.0)  # as from the run's folder, whose points are lost
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=13)

    longer = new_attempt(db, run.id, 10)
    registry.record_validation(db, run.id, longer, iteration=15, loss=2.5, standard_error=0.25)
    save(db, run.id, longer, 15, validation_loss=2.5)
    registry.end_attempt(db, longer, reason="finished", status="completed", iteration=15)

    row, kept = registry.find_run(db, "heron"), registry.checkpoints_of(db, run.id)
    assert {each["iteration"]: each["validation_loss"] for each in kept} == {5: 4.0, 10: 3.0, 13: None, 15: 2.5}
    assert [each["iteration"] for each in kept if each["is_best"]] == [15]
    assert (row["best_iteration"], row["best_validation_loss"]) == (15, 2.5)


def test_the_best_checkpoint_of_a_run_that_was_set_back_is_that_of_its_best_loss_at_every_instant(db: Registry) -> None:
    run, attempt = validated(db)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=13)
    shown = []

    registry.mark_checkpoint(db, run.id, 13, "missing")
    longer = new_attempt(db, run.id, 10)
    shown.append(best(db))
    registry.mark_checkpoint(db, run.id, 13, "whole")
    shown.append(best(db))
    registry.record_validation(db, run.id, longer, iteration=15, loss=2.5, standard_error=0.25)
    save(db, run.id, longer, 15, validation_loss=2.5)
    shown.append(best(db))
    again = new_attempt(db, run.id, 10)
    shown.append(best(db))
    registry.record_validation(db, run.id, again, iteration=15, loss=2.5, standard_error=0.25)
    save(db, run.id, again, 15, validation_loss=2.5)
    shown.append(best(db))
    registry.end_attempt(db, again, reason="finished", status="completed", iteration=20)

    assert shown == [(10, 3.0, [10]), (10, 3.0, [10]), (15, 2.5, [15]), (10, 3.0, [10]), (15, 2.5, [15])]
    assert best(db) == (15, 2.5, [15])


def test_a_checkpoint_taken_from_the_folder_can_be_the_best_without_a_point(db: Registry) -> None:
    run = new_run(db)
    save(db, run.id, None, 5, validation_loss=1.0)
    save(db, run.id, None, 10, validation_loss=3.0)

    attempt = new_attempt(db, run.id, 10)
    begun = best(db)[-1]
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=20)

    assert begun == best(db)[-1] == [5]
    assert [each["validation_loss"] for each in registry.checkpoints_of(db, run.id)] == [1.0, 3.0]
