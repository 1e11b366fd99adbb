"""What pruning may remove, as a pure function."""

from __future__ import annotations

import random

import pytest

from mlxops.training.retention import Kept, Plan, plan


def kept(iteration: int, *, state: bool = True, best: bool = False, branch: bool = False) -> Kept:
    """A checkpoint of 10 bytes of weights and, where it has one, 30 of state."""
    return Kept(
        iteration=iteration,
        has_state=state,
        adapter_bytes=10,
        state_bytes=30 if state else 0,
        is_best=best,
        is_branch_point=branch,
    )


TEN = [kept(iteration) for iteration in range(100, 1001, 100)]


def test_without_a_wish_nothing_goes() -> None:
    assert plan(TEN, keep_last=None) == Plan()


def test_nothing_goes_of_no_checkpoints() -> None:
    assert plan([], keep_last=1) == Plan()


def test_keep_last_keeps_the_newest_and_counts_the_bytes() -> None:
    went = plan(TEN[:5], keep_last=3)

    assert went == Plan(states=(100, 200), adapters=(100, 200), bytes=80)


def test_the_order_they_are_given_in_does_not_matter() -> None:
    shuffled = random.Random(1).sample(TEN, len(TEN))

    assert plan(shuffled, keep_last=2) == plan(TEN, keep_last=2)


@pytest.mark.parametrize("mark", ["best", "branch"])
def test_the_best_and_branch_points_never_go(mark: str) -> None:
    went = plan([kept(100, **{mark: True}), *TEN[1:]], keep_last=1)

    assert 100 not in {*went.states, *went.adapters}
    assert went.adapters == tuple(range(200, 1000, 100))


def test_the_newest_to_go_on_from_never_goes() -> None:
    went = plan([kept(100), kept(200), kept(300, state=False), kept(400, state=False)], keep_last=1)

    assert went == Plan(states=(100,), adapters=(100, 300), bytes=50)


def test_the_newest_of_all_never_goes() -> None:
    went = plan([kept(100, state=False), kept(200, state=False)], keep_last=None, keep_best=True)

    assert went == Plan(adapters=(100,), bytes=10)


def test_keep_best_alone_leaves_the_best_and_the_newest() -> None:
    went = plan([kept(100), kept(200, best=True), kept(300), kept(400)], keep_last=None, keep_best=True)

    assert went == Plan(states=(100, 300), adapters=(100, 300), bytes=80)


def test_keep_every_keeps_the_weights_and_not_the_state() -> None:
    went = plan(TEN[:5], keep_last=None, keep_every=200)

    assert went == Plan(states=(100, 200, 300, 400), adapters=(100, 300), bytes=140)


def test_a_state_that_is_gone_is_not_planned_again() -> None:
    went = plan([kept(100, state=False), kept(200, state=False), kept(300)], keep_last=1, keep_every=200)

    assert went == Plan(adapters=(100,), bytes=10)


@pytest.mark.parametrize("seed", range(20))
def test_no_wish_ever_plans_what_must_stay(seed: int) -> None:
    dice = random.Random(seed)
    there = [
        kept(iteration, state=dice.random() < 0.6, best=dice.random() < 0.1, branch=dice.random() < 0.1)
        for iteration in dice.sample(range(1, 1000), dice.randint(1, 30))
    ]

    went = plan(
        there,
        keep_last=dice.choice([None, 1, 3]),
        keep_best=dice.random() < 0.5,
        keep_every=dice.choice([None, 2, 7]),
    )

    stays = {each.iteration for each in there if each.is_best or each.is_branch_point}
    stays |= {max(each.iteration for each in there)}
    stays |= {max((each.iteration for each in there if each.has_state), default=0)}
    assert not stays & {*went.states, *went.adapters}
    # weights without their state stay usable, a state without its weights is waste
    assert {each.iteration for each in there if each.has_state} & set(went.adapters) <= set(went.states)
