"""Two models on the same rows: the difference, its interval, and the rows that moved."""

from __future__ import annotations

import numpy as np
import pytest

from mlxops.evaluation.comparison import compare
from mlxops.evaluation.measures import Better, Measure

GENERATOR = np.random.Generator(np.random.PCG64(7))
HARDNESS = GENERATOR.normal(3, 1, 60)
NOISE = GENERATOR.normal(0, 0.1, 60)


def measure(values: np.ndarray, *, better: Better | None = "lower", is_exponential: bool = False) -> Measure:
    return Measure(
        metric="loss",
        better=better,
        rows=[f"a:{place}" for place in range(len(values))],
        values=values,
        weights=np.ones(len(values)),
        is_exponential=is_exponential,
        tolerance=0.01,
    )


def test_how_hard_a_row_is_cancels_out() -> None:
    found = compare(measure(HARDNESS), measure(HARDNESS - 0.2 + NOISE))

    assert found.difference == pytest.approx(-0.2 + NOISE.mean())
    assert found.sure
    assert found.low is not None
    assert found.high is not None
    # the normal approximation of the mean of 60 paired differences
    assert [found.low, found.high] == pytest.approx(
        found.difference + np.array([-1.96, 1.96]) * NOISE.std() / 60**0.5, abs=0.002
    )


def test_what_chance_explains_is_not_sure() -> None:
    found = compare(measure(HARDNESS), measure(HARDNESS + NOISE - NOISE.mean()))

    assert not found.sure
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_the_same_seed_gives_the_same_interval() -> None:
    pair = measure(HARDNESS), measure(HARDNESS + NOISE)

    assert compare(*pair, seed=3) == compare(*pair, seed=3)
    assert compare(*pair, seed=3).low != compare(*pair, seed=4).low


@pytest.mark.parametrize(
    ("better", "improved", "worsened"), [("lower", ("a:2", "a:0"), ("a:1",)), ("higher", ("a:1",), ("a:2", "a:0"))]
)
def test_rows_that_moved_are_named_the_furthest_first(better: Better, improved: object, worsened: object) -> None:
    found = compare(
        measure(np.array([2.0, 2, 2, 2]), better=better), measure(np.array([1.5, 3, 1, 2.005]), better=better)
    )

    assert (found.improved, found.worsened, found.same) == (improved, worsened, ("a:3",))


def test_a_metric_without_a_direction_names_no_rows() -> None:
    found = compare(measure(HARDNESS, better=None), measure(HARDNESS - 1, better=None))

    assert found.difference == pytest.approx(-1)
    assert (found.improved, found.worsened, found.same) == ((), (), ())


def test_a_perplexity_is_compared_as_a_perplexity() -> None:
    found = compare(measure(HARDNESS, is_exponential=True), measure(HARDNESS - 1, is_exponential=True))

    assert found.difference == pytest.approx(np.exp(HARDNESS.mean() - 1) - np.exp(HARDNESS.mean()))


def test_one_row_has_no_interval() -> None:
    found = compare(measure(np.array([2.0])), measure(np.array([1.0])))

    assert (found.difference, found.low, found.high, found.sure) == (-1.0, None, None, False)


def test_rows_without_a_value_are_left_out() -> None:
    nothing = Measure(
        metric="loss", better="lower", rows=["a:0"], values=np.zeros(1), weights=np.zeros(1), tolerance=0.01
    )

    assert compare(nothing, nothing).difference is None


def test_other_rows_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compare(measure(HARDNESS), measure(HARDNESS[:-1]))
