"""A training is a function of model, rows and settings: watching, stopping, extending and poison do not change it."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from small_trainings import (
    MinutePerStep,
    adapter_bytes,
    after_step,
    model_of,
    plain_gradient,
    row_losses,
    rows,
    settings,
    train_small,
)

from mlxops.events import OF_THE_CLOCK, Report, Saved, Started, Step, Stopped, Validating, Validation
from mlxops.training import batches, checkpoints
from mlxops.training.batches import collate


def reports(heard, closing=False):
    """The reports without what a clock or the allocator says."""
    return [
        (each.iteration, each.epoch, {name: value for name, value in each.metrics.items() if name not in OF_THE_CLOCK})
        for each in heard.of(Report)
        if each.closing is closing
    ]


def validations(heard, closing=False):
    return [
        (each.iteration, each.loss, each.standard_error) for each in heard.of(Validation) if each.closing is closing
    ]


# what is said -------------------------------------------------------------------------------------------------------


def test_a_training_says_what_it_does_in_this_order(tiny_model, tmp_path):
    config = settings(iters=3, steps_per_report=2, steps_per_eval=2, save_every=2)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=rows(2))

    assert [type(event) for event in heard.events] == [
        Started,
        *(Validating, Validation),
        Step,
        *(Step, Report, Validating, Validation, Saved),
        Step,
        *(Report, Validating, Validation, Saved),
        Stopped,
    ]


@pytest.mark.slow
def test_a_report_is_the_mean_over_the_tokens_of_its_window(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=6, steps_per_report=3))

    steps = heard.of(Step)
    windows = [steps[:3], steps[3:]]
    expected = [sum(s.loss * s.tokens for s in window) / sum(s.tokens for s in window) for window in windows]
    assert [each.metrics["train_loss"] for each in heard.of(Report)] == pytest.approx(expected)
    assert [each.metrics["trained_tokens"] for each in heard.of(Report)] == [
        sum(s.tokens for s in steps[:3]),
        sum(s.tokens for s in steps),
    ]


@pytest.mark.slow
def test_a_report_tells_the_epoch_and_the_share_of_padding(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=10, steps_per_report=5))

    made = [collate([rows()[index] for index in group]) for group in batches.plan(rows(), batch_size=2, seed=0).groups]
    padding = 1 - sum(batch.real for batch in made) / sum(batch.positions for batch in made)
    assert [(each.epoch, each.metrics["padding_share"]) for each in heard.of(Report)] == [
        (1, pytest.approx(padding)),
        (2, pytest.approx(padding)),
    ]


def test_what_a_probe_finds_stands_in_every_report(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=3), probe=lambda: {"cpu_percent": 7.0})

    assert [each.metrics["cpu_percent"] for each in heard.of(Report)] == [7.0, 7.0]


@pytest.mark.slow
def test_a_training_on_the_grid_closes_without_a_report_of_its_own(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=6), validation_rows=rows(2))

    assert reports(heard, closing=True) == validations(heard, closing=True) == []
    assert [each.iteration for each in heard.of(Saved)] == [2, 3, 4, 6]


@pytest.mark.slow
def test_training_learns(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=20, batch_size=9))

    assert heard.losses[-1] < heard.losses[0] - 0.3


# watching changes nothing -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_validating_more_often_trains_the_same_weights(tiny_model, tmp_path):
    for every in (1, 4, 100):
        train_small(tiny_model, tmp_path / str(every), settings(steps_per_eval=every), validation_rows=rows(5))
    train_small(tiny_model, tmp_path / "never", settings())

    found = {adapter_bytes(tmp_path / name, 6) for name in ("1", "4", "100", "never")}

    assert len(found) == 1


@pytest.mark.slow
def test_reporting_and_saving_more_often_trains_the_same_weights(tiny_model, tmp_path):
    config = {"iters": 5, "lora_dropout": 0.1, "grad_accumulation_steps": 2}
    train_small(tiny_model, tmp_path / "often", settings(**config, steps_per_report=1, save_every=1))

    train_small(tiny_model, tmp_path / "once", settings(**config, steps_per_report=100, save_every=100))

    assert adapter_bytes(tmp_path / "often", 5) == adapter_bytes(tmp_path / "once", 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("save_every", "saved"), [(100, [3, 6, 9, 10]), (4, [3, 4, 7, 8, 10])], ids=["the clock alone", "both"]
)
def test_a_checkpoint_is_saved_so_many_minutes_after_the_last(tiny_model, tmp_path, save_every, saved):
    config, clock = settings(iters=10, save_minutes=3, save_every=save_every), MinutePerStep()

    heard = train_small(tiny_model, tmp_path, config, stop_at=clock.hear, now=clock)

    assert [each.iteration for each in heard.of(Saved)] == saved


@pytest.mark.slow
def test_saving_by_the_clock_trains_the_same_weights_and_resumes_to_them(tiny_model, tmp_path):
    config = settings(iters=5, lora_dropout=0.1, grad_accumulation_steps=2, save_every=100)
    by_clock, clock = replace(config, save_minutes=1), MinutePerStep()
    train_small(tiny_model, tmp_path / "never", config)

    train_small(tiny_model, tmp_path / "often", by_clock, stop_at=clock.hear, now=clock)
    for iteration in (4, 5):
        checkpoints.remove(tmp_path / "often", states=[iteration], adapters=[iteration])
    resumed = train_small(tiny_model, tmp_path / "often", by_clock, stop_at=clock.hear, now=clock)

    assert resumed.of(Started)[0].iteration == 3
    assert adapter_bytes(tmp_path / "often", 5) == adapter_bytes(tmp_path / "never", 5)


@pytest.mark.slow
def test_a_run_is_the_same_to_the_last_bit_when_it_is_made_again(tiny_model, tmp_path):
    config = settings(lora_dropout=0.1, iters=5)
    first = train_small(tiny_model, tmp_path / "first", config, validation_rows=rows(3))

    again = train_small(tiny_model, tmp_path / "again", config, validation_rows=rows(3))

    assert reports(again) == reports(first)
    assert validations(again) == validations(first)
    assert adapter_bytes(tmp_path / "again", 5) == adapter_bytes(tmp_path / "first", 5)


# validation ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_validation_is_the_loss_of_the_validation_rows(tiny_model, tmp_path):
    config = settings(iters=1, val_batches=-1)
    model, batch = model_of(tiny_model, config), collate(rows(5))

    heard = train_small(tiny_model, tmp_path, config, validation_rows=rows(5))

    losses = row_losses(model, batch)
    first = heard.of(Validation)[0]
    assert first.loss == pytest.approx(losses.sum() / batch.trained, rel=1e-5)
    assert (first.iteration, first.rows, first.tokens) == (0, 5, batch.trained)


@pytest.mark.slow
def test_dropout_is_off_while_validating(tiny_model, tmp_path):
    dropping, plain = (
        train_small(
            tiny_model, tmp_path / str(dropout), settings(iters=1, lora_dropout=dropout), validation_rows=rows(3)
        )
        for dropout in (0.5, 0.0)
    )

    assert dropping.of(Validation)[0].loss == plain.of(Validation)[0].loss


@pytest.mark.parametrize(("count", "seen"), [(0, []), (1, [2]), (2, [4]), (-1, [5]), (25, [5])])
def test_as_many_validation_batches_are_used_as_asked_for(tiny_model, tmp_path, count, seen):
    config = settings(iters=1, steps_per_eval=100, val_batches=count)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=rows(5))

    assert [each.rows for each in heard.of(Validation) if not each.closing] == seen


@pytest.mark.slow
def test_a_validation_that_was_stopped_is_made_up_when_the_run_goes_on(tiny_model, tmp_path):
    config = settings(iters=6, steps_per_eval=3, lora_dropout=0.1)
    whole = train_small(tiny_model, tmp_path / "whole", config, validation_rows=rows(7))

    first = train_small(
        tiny_model,
        tmp_path / "parts",
        config,
        validation_rows=rows(7),
        stop_at=lambda event: isinstance(event, Validating) and (event.iteration, event.done) == (3, 2),
    )
    rest = train_small(tiny_model, tmp_path / "parts", config, validation_rows=rows(7))

    assert [each[0] for each in validations(first)] == [0]
    assert validations(first) + validations(rest) == validations(whole)
    assert adapter_bytes(tmp_path / "parts", 6) == adapter_bytes(tmp_path / "whole", 6)


def test_a_stop_in_the_last_batch_of_a_validation_does_not_lose_it(tiny_model, tmp_path):
    config = settings(iters=3, steps_per_eval=2)

    heard = train_small(
        tiny_model,
        tmp_path,
        config,
        validation_rows=rows(4),
        stop_at=lambda event: isinstance(event, Validating) and (event.iteration, event.done) == (2, 2),
    )

    assert [each[0] for each in validations(heard)] == [0, 2]


# stopping and resuming ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_stopped_at_any_iteration_ends_as_if_it_had_not_been(tiny_model, tmp_path):
    config = settings(iters=7, lora_dropout=0.1, grad_accumulation_steps=3, save_every=4, max_grad_norm=0.1)
    whole = train_small(tiny_model, tmp_path / "whole", config, validation_rows=rows(3))

    parts = [
        train_small(tiny_model, tmp_path / "parts", config, validation_rows=rows(3), stop_at=after_step(iteration))
        for iteration in range(1, 8)
    ]

    assert [each.stopped for each in parts[:-1]] == [
        Stopped(iteration=iteration, reason="signal", signal_name="SIGTERM") for iteration in range(1, 7)
    ]
    assert [loss for each in parts for loss in each.losses] == whole.losses
    assert [report for each in parts for report in reports(each)] == reports(whole)
    assert reports(parts[-1], closing=True) == reports(whole, closing=True)
    assert [found for each in parts for found in validations(each)] == validations(whole)
    assert adapter_bytes(tmp_path / "parts", 7) == adapter_bytes(tmp_path / "whole", 7)


def test_a_run_stopped_before_its_first_step_saves_nothing(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path / "run", stop_at=lambda event: isinstance(event, Started))

    assert heard.stopped == Stopped(iteration=0, reason="signal", signal_name="SIGTERM")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_a_run_stopped_while_it_closes_closes_when_it_goes_on(tiny_model, tmp_path):
    config = settings(iters=5, grad_accumulation_steps=3, steps_per_eval=4)
    whole = train_small(tiny_model, tmp_path / "whole", config, validation_rows=rows(5))

    train_small(
        tiny_model,
        tmp_path / "parts",
        config,
        validation_rows=rows(5),
        stop_at=lambda event: isinstance(event, Validating) and event.iteration == 5,
    )
    rest = train_small(tiny_model, tmp_path / "parts", config, validation_rows=rows(5))

    assert rest.of(Step) == []
    assert validations(rest, closing=True) == validations(whole, closing=True)
    assert adapter_bytes(tmp_path / "parts", 5) == adapter_bytes(tmp_path / "whole", 5)


# extension ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_that_is_made_longer_equals_the_longer_run(tiny_model, tmp_path, kind):
    config = {"fine_tune_type": kind, "lora_dropout": 0.1, "grad_accumulation_steps": 3, "max_grad_norm": 0.1}
    straight = train_small(tiny_model, tmp_path / "straight", settings(iters=11, **config), validation_rows=rows(3))

    first = train_small(tiny_model, tmp_path / "longer", settings(iters=7, **config), validation_rows=rows(3))
    rest = train_small(tiny_model, tmp_path / "longer", settings(iters=11, **config), validation_rows=rows(3))

    assert first.losses + rest.losses == straight.losses
    assert reports(first) + reports(rest) == reports(straight)
    assert validations(first) + validations(rest) == validations(straight)
    assert adapter_bytes(tmp_path / "longer", 11) == adapter_bytes(tmp_path / "straight", 11)


@pytest.mark.slow
def test_the_closing_of_a_target_off_the_grids_is_its_own(tiny_model, tmp_path):
    config = settings(iters=5, steps_per_report=4, steps_per_eval=4)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=rows(3))

    steps = heard.of(Step)[4:]
    (closing,) = [each for each in heard.of(Report) if each.closing]
    assert closing.metrics["train_loss"] == pytest.approx(steps[0].loss)
    assert [each[0] for each in validations(heard, closing=True)] == [5]
    assert {"train_loss", "validation_loss", "validation_standard_error"} <= set(
        checkpoints.newest(tmp_path)[0].counters.closing
    )


def test_the_closing_update_is_in_the_adapter_and_not_where_a_longer_run_goes_on(tiny_model, tmp_path):
    config = settings(iters=4, grad_accumulation_steps=3, optimizer="sgd", learning_rate=1.0)
    train_small(tiny_model, tmp_path, config)

    offered = {name: np.array(value) for name, value in mx.load(str(tmp_path / "adapters.safetensors")).items()}
    going_on = {name: np.array(value) for name, value in checkpoints.load(checkpoints.newest(tmp_path)[0])[0].items()}

    model = model_of(tiny_model, config)
    model.load_weights([(name, mx.array(value)) for name, value in going_on.items()], strict=False)
    gradient = plain_gradient(model, [batches.plan(rows(), batch_size=2, seed=0).batch(4)])
    assert max(np.abs(each).max() for each in gradient.values()) > 1e-3
    for name, each in gradient.items():
        np.testing.assert_allclose(going_on[name] - offered[name], each, atol=1e-6)
