"""The learning rate of every iteration."""

import math

import pytest
from small_trainings import settings, train_small

from mlxops.errors import BadRequest
from mlxops.events import Report
from mlxops.training.schedule import learning_rates

SCHEDULES = ["constant", "cosine_decay", "linear_schedule"]


def rates(target, **changed):
    rate = learning_rates(settings(learning_rate=1.0, **changed), target=target)
    return [rate(iteration) for iteration in range(1, target + 1)]


def test_a_constant_rate_is_the_learning_rate():
    assert rates(3) == [1.0, 1.0, 1.0]


def test_the_warm_up_reaches_the_peak_at_its_last_iteration():
    assert rates(6, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_warm_up_starts_from_its_own_rate():
    assert rates(3, warmup=2, warmup_init=0.5) == [0.75, 1.0, 1.0]


@pytest.mark.parametrize("warmup", [0, 1, 4, 9])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_iteration_has_the_learning_rate_0(schedule, warmup):
    assert min(rates(10, lr_schedule=schedule, warmup=warmup)) > 0


@pytest.mark.parametrize("warmup", [0, 1, 20])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_peak_is_reached_once_and_never_passed(schedule, warmup):
    found = rates(100, lr_schedule=schedule, warmup=warmup)

    assert max(found) == found[max(0, warmup - 1)] == 1.0


@pytest.mark.parametrize("warmup", [0, 20])
def test_a_cosine_follows_its_formula_and_ends_near_0(warmup):
    found = rates(100, lr_schedule="cosine_decay", warmup=warmup)

    steps = 100 - max(warmup, 1) + 1
    expected = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert found[max(warmup, 1) - 1 :] == pytest.approx(expected, abs=1e-6)
    assert found[-1] < 0.001


def test_a_line_falls_evenly():
    assert rates(4, lr_schedule="linear_schedule") == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_schedules_own_length_does_not_change_with_the_target():
    arguments = {"lr_schedule": "cosine_decay", "lr_schedule_arguments": [8.0, 0.1]}

    assert rates(20, **arguments)[:10] == rates(10, **arguments)
    assert rates(20, **arguments)[8:] == pytest.approx([0.1] * 12)


def test_steps_are_counted_in_iterations():
    arguments = {"lr_schedule": "step_decay", "lr_schedule_arguments": [0.5, 2]}

    assert rates(6, **arguments) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_rate_can_fall_by_a_factor_an_iteration():
    assert rates(3, lr_schedule="exponential_decay", lr_schedule_arguments=[0.5]) == [1.0, 0.5, 0.25]


def test_iterations_are_counted_not_updates(tiny_model, tmp_path):
    config = settings(iters=6, warmup=6, learning_rate=6e-3, grad_accumulation_steps=3, steps_per_report=1)

    heard = train_small(tiny_model, tmp_path, config)

    found = [report.metrics["learning_rate"] for report in heard.of(Report)]
    assert found == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3])


def test_a_warm_up_longer_than_the_training_is_only_its_beginning():
    assert rates(2, warmup=4, lr_schedule="cosine_decay") == [0.25, 0.5]


@pytest.mark.parametrize("arguments", [[], [0.5], [0.5, 2, 3, 4], [0.5, 0]])
def test_arguments_that_a_schedule_cannot_take_are_refused(arguments):
    with pytest.raises(BadRequest, match="step_decay takes decay_rate, step_size") as refused:
        rates(3, lr_schedule="step_decay", lr_schedule_arguments=arguments)

    assert refused.value.hint
