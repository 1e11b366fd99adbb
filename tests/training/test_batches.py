"""Which rows form a batch follows from the seed; every row is trained once an epoch; nothing else than its spans."""

import random
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from small_trainings import row, rows

from mlxops.rows import TokenRow
from mlxops.training import batches


def places(plan: batches.Plan, first: int, last: int) -> list[int]:
    return [plan.position(iteration)[1] for iteration in range(first, last + 1)]


def padding_share(groups) -> float:
    made = [batches.collate(group) for group in groups]
    return 1 - sum(batch.real for batch in made) / sum(batch.positions for batch in made)


def test_which_rows_form_a_batch_is_a_function_of_the_seed_alone():
    first = batches.plan(rows(40), batch_size=4, seed=5)
    np.random.seed(1)
    random.seed(1)
    mx.random.seed(1)
    first.batch(37)

    again = batches.plan(rows(40), batch_size=4, seed=5)

    assert again.groups == first.groups
    assert batches.plan(rows(40), batch_size=4, seed=6).groups != first.groups


def test_the_order_of_the_batches_is_a_function_of_seed_and_epoch():
    plan = batches.plan(rows(40), batch_size=4, seed=5)
    third_epoch = places(plan, 21, 30)

    other = batches.plan(rows(40), batch_size=4, seed=5)

    assert places(other, 1, 30)[20:] == third_epoch
    assert len({tuple(places(plan, 1 + 10 * epoch, 10 + 10 * epoch)) for epoch in range(4)}) == 4
    assert [plan.position(iteration)[0] for iteration in (1, 10, 11, 20, 21)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_every_row_is_trained_once_an_epoch_the_last_short_batch_too(batch_size):
    plan = batches.plan(rows(30), batch_size=batch_size, seed=1)

    epochs = [
        Counter(
            origin
            for iteration in range(1 + epoch * len(plan), 1 + (epoch + 1) * len(plan))
            for origin in plan.batch(iteration).origins
        )
        for epoch in range(3)
    ]

    assert epochs == [Counter(each.origin for each in rows(30))] * 3


def test_a_batch_larger_than_the_data_is_one_batch_of_all_rows():
    plan = batches.plan(rows(3), batch_size=64, seed=0)

    assert len(plan) == 1
    assert plan.batch(9).arrays["tokens"].shape[0] == 3


def test_rows_of_like_length_go_together():
    mixed = rows(200, shortest=8, longest=400)
    plan = batches.plan(mixed, batch_size=8, seed=0)

    alike = padding_share([[mixed[index] for index in group] for group in plan.groups])
    as_they_come = padding_share([mixed[start : start + 8] for start in range(0, 200, 8)])

    assert alike < 0.08
    assert as_they_come > 0.3


def test_the_same_rows_in_batches_change_with_the_seed_but_not_their_padding():
    mixed = rows(200, shortest=8, longest=400)

    shares = [
        padding_share(
            [[mixed[index] for index in group] for group in batches.plan(mixed, batch_size=8, seed=seed).groups]
        )
        for seed in (1, 2)
    ]

    assert shares == pytest.approx([shares[0]] * 2, abs=0.01)


def test_no_library_can_move_the_batches_of_a_seed():
    plan = batches.plan(rows(9), batch_size=2, seed=3)

    assert plan.groups == ((0, 7), (3, 1), (5, 6), (8, 2), (4,))
    assert places(plan, 1, 15) == [3, 2, 1, 4, 0, 0, 3, 1, 2, 4, 2, 3, 0, 4, 1]
    assert batches.step_key(3, 7) == 6052503247696667598


def test_only_the_spans_of_a_row_are_trained():
    long, short = row(0, 20, prompt=5), row(1, 6, prompt=4)

    batch = batches.collate([long, short])

    assert batch.arrays["tokens"].shape == (2, 33)
    assert batch.arrays["mask"].shape == (2, 32)
    assert np.flatnonzero(batch.arrays["mask"][0]).tolist() == list(range(4, 19))
    assert np.flatnonzero(batch.arrays["mask"][1]).tolist() == [3, 4]
    assert (batch.trained, batch.real, batch.positions) == (17, 26, 66)


def test_a_token_with_nothing_before_it_is_not_trained():
    whole = TokenRow(tokens=np.arange(5, dtype=np.int32), spans=((0, 5),), origin="f:1")

    assert batches.collate([whole]).trained == whole.trained == 4


def test_a_row_counts_as_many_trained_tokens_as_its_batch_trains():
    several = TokenRow(tokens=np.arange(30, dtype=np.int32), spans=((0, 1), (3, 7), (9, 9), (20, 30)), origin="f:1")

    assert batches.collate([several]).trained == several.trained == 14


@pytest.mark.parametrize(("length", "width"), [(1, 17), (2, 17), (17, 17), (18, 33), (33, 33), (34, 49)])
def test_inputs_are_padded_to_a_multiple_of_16_and_no_further(length, width):
    assert batches.collate([row(0, length)]).arrays["tokens"].shape == (1, width)


def test_validation_has_the_same_rows_in_the_same_batches_at_every_call():
    first = batches.fixed_batches(rows(30), batch_size=4, count=5, seed=2)

    again = batches.fixed_batches(rows(30), batch_size=4, count=5, seed=2)

    assert [batch.origins for batch in again] == [batch.origins for batch in first]
    assert len({origin for batch in first for origin in batch.origins}) == 20


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [4]), (2, [4, 4]), (25, [4, 4, 2]), (-1, [4, 4, 2])])
def test_validation_takes_as_many_batches_as_asked_for_and_there_are(count, sizes):
    made = batches.fixed_batches(rows(10), batch_size=4, count=count, seed=0)

    assert [len(batch.origins) for batch in made] == sizes


def test_validation_draws_its_rows_from_all_lengths():
    mixed = rows(200, shortest=8, longest=400)

    made = batches.fixed_batches(mixed, batch_size=4, count=10, seed=0)

    drawn = [int((batch.arrays["tokens"][place] > 0).sum()) for batch in made for place in range(4)]
    assert min(drawn) < 80 < 320 < max(drawn)
