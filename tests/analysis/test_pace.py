import pytest

from mlxops import events
from mlxops.analysis.pace import Pace


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


def started(iteration=0, target=100, **intervals):
    return events.Started(iteration=iteration, target=target, batches_per_epoch=10, trained_tokens=0, **intervals)


def step(iteration, seconds, tokens=100):
    return events.Step(iteration=iteration, loss=2.0 - iteration / 100, tokens=tokens, seconds=seconds)


def validated(iteration, seconds):
    return events.Validation(iteration=iteration, loss=2.0, standard_error=0.1, rows=1, tokens=1, seconds=seconds)


def after(*happenings, clock=None):
    pace = Pace(0, 100, clock or Clock())
    for event in happenings:
        pace.hear(event)
    return pace


def test_before_the_first_step_nothing_is_known():
    pace = after(started(), validated(0, 3.0))

    assert (pace.estimate.iterations_per_second, pace.left) == (None, None)


def test_the_first_step_gives_every_figure():
    known = after(started(), step(1, 2.0)).estimate

    assert (known.iteration, known.step_loss, known.iterations_per_second) == (1, 1.99, 0.5)
    assert (known.tokens_per_second, known.seconds_left) == (50.0, 198.0)


def test_the_first_step_which_prepares_the_others_no_longer_counts_once_there_are_others():
    pace = after(started(), step(1, 60.0), step(2, 0.5), step(3, 0.5))

    assert (pace.estimate.iterations_per_second, pace.left) == (2.0, 48.5)


def test_only_the_newest_steps_count():
    slow, fast = (
        [step(index, seconds) for index in span] for seconds, span in ((9.0, range(60)), (0.5, range(60, 200)))
    )

    assert after(started(target=1000), *slow, *fast).estimate.iterations_per_second == 2.0


def test_validations_and_checkpoints_to_come_are_counted_apart_from_the_rate():
    saved = events.Saved(
        iteration=20, adapter_file="", state_file="", bytes=1, adapter_sha256="", state_sha256="",
        train_loss=None, validation_loss=None, seconds=2.0,
    )  # fmt: skip
    begun = [started(target=50, validates_every=20, saves_every=25), step(19, 1.0), step(20, 1.0)]
    pace = after(*begun, validated(20, 10.0), saved)

    # 30 steps, the validations at 40 and 50, the checkpoints at 25 and 50
    assert (pace.estimate.iterations_per_second, pace.left) == (1.0, 30 + 2 * 10 + 2 * 2)


def test_a_validation_that_is_under_way_is_still_to_come():
    begun = [started(target=40, validates_every=20), step(20, 1.0), validated(20, 10.0), step(21, 1.0)]

    assert after(*begun, step(40, 1.0)).left == 10.0
    assert after(*begun, step(40, 1.0), validated(40, 12.0)).left == 0.0


def test_what_is_left_goes_down_with_the_clock_and_ends_at_nothing():
    clock = Clock()
    pace = after(started(target=10), step(9, 5.0), clock=clock)
    clock.now += 2

    assert pace.left == 3.0
    clock.now += 10
    assert pace.left == 0.0


def test_a_resumed_attempt_begins_its_own_estimate():
    pace = after(started(iteration=90), step(91, 1.0))

    assert pace.left == pytest.approx(9.0)
