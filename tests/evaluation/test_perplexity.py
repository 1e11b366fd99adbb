"""Perplexity from log-probabilities: weighted by token, one row per conversation, whatever the batches are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from mlxops.evaluation import measures, perplexity
from mlxops.evaluation.perplexity import RowLoss, row_losses
from mlxops.training.improvement import ratio


@dataclass(frozen=True)
class Rows:
    """A batch of three positions: trained and real tokens by row."""

    origins: tuple[str, ...]
    mask: list[list[bool]]
    real: list[list[bool]]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {"mask": np.array(self.mask), "real": np.array(self.real)}


FIRST = Rows(("a:1", "a:2"), [[False, True, True], [True, False, False]], [[True] * 3, [True, True, False]])
SECOND = Rows(("a:1",), [[True, False, False]], [[True, False, False]])
LOG_PROBABILITIES = {2: np.array([[-1.0, -2, -3], [-4, -5, 0]]), 1: np.array([[-6.0, 0, 0]])}
A1 = RowLoss(origin="a:1", loss=2 + 3 + 6, tokens=3, loss_all=1 + 2 + 3 + 6, tokens_all=4)
A2 = RowLoss(origin="a:2", loss=4, tokens=1, loss_all=9, tokens_all=2)


def test_the_parts_of_one_conversation_are_one_row() -> None:
    assert row_losses([FIRST, SECOND], lambda batch: LOG_PROBABILITIES[len(batch.origins)]) == [A1, A2]


def test_progress_counts_rows() -> None:
    told: list[int] = []

    row_losses([FIRST, SECOND], lambda batch: LOG_PROBABILITIES[len(batch.origins)], told.append)

    assert told == [2, 3]


def test_every_token_weighs_the_same() -> None:
    scores = {
        each.metric: measures.score(each, ratio).value for each in perplexity.measures([A1, A2], {"a:1": 10, "a:2": 5})
    }

    assert scores == {
        "perplexity": pytest.approx(math.exp(15 / 4)),
        "perplexity_all": pytest.approx(math.exp(21 / 6)),
        "loss": pytest.approx(15 / 4),
        "bits_per_byte": pytest.approx(15 / math.log(2) / 15),
    }


def test_the_standard_error_of_a_perplexity_is_that_of_its_loss_times_the_perplexity() -> None:
    of = {each.metric: measures.score(each, ratio) for each in perplexity.measures([A1, A2], {"a:1": 1, "a:2": 1})}

    assert of["loss"].standard_error == pytest.approx(ratio(np.array([11.0, 4]), np.array([3.0, 1]))[1])
    assert of["perplexity"].standard_error == pytest.approx(of["loss"].standard_error * of["perplexity"].value)


def test_one_row_has_no_standard_error() -> None:
    (score, *_) = [measures.score(each, ratio) for each in perplexity.measures([A2], {"a:2": 1})]

    assert (score.value, score.standard_error, score.rows) == (pytest.approx(math.exp(4)), None, 1)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e6])
def test_what_is_not_finite_is_none(loss: float) -> None:
    row = RowLoss(origin="a:1", loss=loss, tokens=1, loss_all=loss, tokens_all=1)

    assert measures.score(perplexity.measures([row, row], {"a:1": 1})[0], ratio).value is None


def test_the_worst_rows_are_those_with_the_highest_loss_per_token() -> None:
    unknown = RowLoss(origin="a:3", loss=math.nan, tokens=1, loss_all=1, tokens_all=1)

    assert perplexity.worst([A1, unknown, A2]) == [unknown, A2, A1]
