"""A validation is a real improvement when the loss of the same rows fell by more than the fall's own standard error."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_trainings import rows

from mlxops.training import improvement
from mlxops.training.batches import fixed_batches
from mlxops.training.improvement import by_origin, is_real, ratio, take
from mlxops.training.state import Counters, Improvement

TOKENS = np.array([10, 20, 30, 40])
HARD = np.array([1.0, 2.0, 3.0, 4.0]) * TOKENS
"""Rows that are very unlike each other, so that the error of one validation is large."""

NOISE = np.array([0, 0, 8, -10])
"""A fall of 0.02 a token that two rows make against each other; its error is 0.15."""


def taken(*losses, tokens=TOKENS, rows_of="these"):
    """What validations with these losses of each row have shown, one after the other."""
    shown = Improvement()
    for number, each in enumerate(losses):
        shown = take(shown, iteration=10 * number, rows=np.array(each), tokens=tokens, rows_of=rows_of)
    return shown


def test_a_fall_that_every_row_shares_is_real_however_unlike_the_rows_are():
    _, error = ratio(HARD, TOKENS)

    now = HARD - 0.01 * TOKENS

    assert error > 0.4
    assert is_real(HARD, now, TOKENS)


def test_a_fall_that_rows_make_against_each_other_is_not_real():
    assert ratio(-NOISE, TOKENS) == (pytest.approx(0.02), pytest.approx(0.146, abs=0.001))
    assert not is_real(HARD, HARD + NOISE, TOKENS)


def test_the_error_of_a_fall_is_that_of_drawing_the_rows_again():
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, 60, 120)
    before = tokens * generator.normal(3.0, 0.8, 120)
    now = before - tokens * generator.normal(0.05, 0.1, 120)

    fall, error = ratio(before - now, tokens)

    drawn = generator.integers(0, 120, (20_000, 120))
    falls = [rows[drawn].sum(axis=1) / tokens[drawn].sum(axis=1) for rows in (before, now)]
    assert error == pytest.approx((falls[0] - falls[1]).std(), rel=0.03)
    assert fall == pytest.approx((falls[0] - falls[1]).mean(), rel=0.02)


def test_the_first_validation_is_what_the_next_are_compared_with():
    shown = taken(HARD)

    assert (shown.lowest, shown.lowest_at, shown.since) == (HARD.sum() / TOKENS.sum(), 0, 0)
    assert shown.rows == HARD.tolist()


def test_a_lower_loss_that_is_not_really_lower_is_the_lowest_and_counts_as_none():
    shown = taken(HARD, HARD + NOISE)

    assert (shown.lowest_at, shown.since) == (10, 1)
    assert shown.rows == HARD.tolist()


def test_many_small_steps_add_up_to_a_real_improvement():
    losses = [HARD, *(HARD + NOISE - 0.05 * count * TOKENS for count in (1, 2, 3))]

    counts = [taken(*losses[: last + 1]).since for last in range(4)]

    assert counts == [0, 1, 2, 0]


def test_a_fall_to_above_the_lowest_loss_is_no_real_improvement():
    lowest, back = HARD + NOISE - 0.05 * TOKENS, HARD - 0.05 * TOKENS

    shown = taken(HARD, lowest, back)

    assert is_real(HARD, back, TOKENS)
    assert not is_real(HARD, lowest, TOKENS)
    assert (shown.lowest_at, shown.since) == (10, 2)


def test_losses_of_other_rows_start_again():
    shown = replace(taken(HARD, HARD + TOKENS, HARD + TOKENS), rows_of="others")

    now = take(shown, iteration=30, rows=np.array([50.0]), tokens=np.array([2]), rows_of="these")

    assert (now.lowest, now.lowest_at, now.since, now.rows) == (25.0, 30, 0, [50.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_no_improvement_and_is_compared_with_nothing(bad):
    shown = taken(HARD, [bad, 1, 1, 1])

    assert shown == replace(taken(HARD), since=1)
    assert json.loads(Counters(improvement=shown).to_json())["improvement"]["since"] == 1


def test_after_losses_that_were_not_finite_the_first_that_is_counts_anew():
    shown = taken([np.nan, 1, 1, 1], [np.inf, 1, 1, 1], HARD)

    assert (shown.lowest_at, shown.since) == (20, 0)


def test_what_validations_have_shown_comes_back_from_a_checkpoint_to_the_last_bit():
    losses = np.float32([0.1, 1 / 3, 2.7, 1e-30]).astype(np.float64)
    counters = Counters(iteration=7, improvement=taken(losses), validated_at=5)

    assert Counters.from_json(counters.to_json()) == counters


def test_counters_from_before_there_were_improvements_are_read():
    old = json.loads(Counters(iteration=7, validation_loss=2.0).to_json())
    del old["improvement"], old["validated_at"]

    assert Counters.from_json(json.dumps(old)) == Counters(iteration=7, validation_loss=2.0)


def test_only_the_same_rows_in_the_same_batches_are_compared():
    def named(count, size, seed=0):
        return improvement.identity(fixed_batches(rows(9), batch_size=size, count=count, seed=seed))

    assert named(2, 2) == named(2, 2)
    assert len({named(2, 2), named(3, 2), named(2, 3), named(-1, 9), named(2, 2, seed=5)}) == 5


def test_the_rows_of_one_conversation_are_one_draw_in_the_standard_error() -> None:
    losses, tokens = np.array([2.0, 2.0, 9.0, 9.0]), np.array([1, 1, 3, 3])

    apart = ratio(losses, tokens)
    together = ratio(*by_origin(losses, tokens, ["f:1", "f:1", "f:2", "f:2"]))

    assert together[0] == apart[0]
    assert together[1] == pytest.approx(ratio(np.array([4.0, 18.0]), np.array([2, 6]))[1])
    assert together[1] > apart[1]


def test_rows_that_are_conversations_of_their_own_stay_as_they_are() -> None:
    losses, tokens = np.array([0.1, 0.2]), np.array([3, 4])

    found = by_origin(losses, tokens, ["f:1", "f:2"])

    assert found[0] is losses
    assert found[1] is tokens
