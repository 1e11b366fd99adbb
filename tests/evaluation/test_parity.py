"""Two models compared by their logits: the figures are those of an independent computation."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxops.evaluation import measures, parity
from mlxops.training.improvement import ratio


@dataclass(frozen=True)
class Rows:
    """A batch as parity takes it."""

    origins: tuple[str, ...]
    arrays: dict[str, np.ndarray]


GENERATOR = np.random.default_rng(3)
FIRST, SECOND = (GENERATOR.normal(size=(7, 7)).astype(np.float32) * 2 for _ in range(2))
TOKENS = np.array([[1, 3, 2, 5, 0], [4, 4, 6, 1, 0]], np.int32)
MASK = np.array([[False, True, True, True], [True, False, True, False]])
BATCHES = [
    Rows(("a:1",), {"tokens": TOKENS[:1], "mask": MASK[:1]}),
    Rows(("a:2",), {"tokens": TOKENS[1:], "mask": MASK[1:]}),
]


def model(table: np.ndarray):
    return lambda tokens: mx.array(table)[tokens]


def scores() -> dict[str, float | None]:
    rows = parity.compare_rows(BATCHES, model(FIRST), model(SECOND))
    before, after = parity.measures(rows)
    found = {each.metric: measures.score(each, ratio).value for each in after}
    return {**found, "before": measures.score(before[0], ratio).value, "logits": max(row.logits for row in rows)}


def test_the_figures_are_those_of_plain_numpy() -> None:
    inputs, targets = TOKENS[:, :-1][MASK], TOKENS[:, 1:][MASK]
    first, second = FIRST[inputs].astype(np.float64), SECOND[inputs].astype(np.float64)
    p, q = (np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (first, second))
    places = np.arange(len(targets))
    wanted = {
        "perplexity": np.exp(-np.log(q[places, targets]).mean()),
        "before": np.exp(-np.log(p[places, targets]).mean()),
        "changed_tokens": (first.argmax(-1) != second.argmax(-1)).mean(),
        "kl_divergence": (p * np.log(p / q)).sum(-1).mean(),
        "logits": np.abs(first - second).max(),
    }

    found = scores()

    assert 0 < wanted["changed_tokens"] < 1
    assert {name: round(float(value), 4) for name, value in wanted.items()} == {
        name: round(found[name], 4) for name in wanted
    }


def test_the_rows_of_one_conversation_are_one() -> None:
    parts = [Rows(("a:1",), batch.arrays) for batch in BATCHES]

    (row,) = parity.compare_rows(parts, model(FIRST), model(SECOND))
    several = parity.compare_rows(BATCHES, model(FIRST), model(SECOND))

    assert (row.origin, row.tokens, row.changed) == ("a:1", 5, sum(each.changed for each in several))
    assert row.logits == max(each.logits for each in several)


def test_a_model_is_as_far_from_itself_as_nothing() -> None:
    rows = parity.compare_rows(BATCHES, model(FIRST), model(FIRST))

    assert {(row.changed, row.divergence, row.logits) for row in rows} == {(0, 0.0, 0.0)}
    assert [row.before for row in rows] == [row.after for row in rows]
