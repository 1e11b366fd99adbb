"""The log-probabilities of a score: right to the last digits of float32, and as they were for runs of before."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxops.training.score import plain
from mlxops.training.ways import EXACT


class Fixed(nn.Module):
    """A model whose logits are its one weight, whatever it reads."""

    def __init__(self, vocabulary: int, dtype: mx.Dtype = mx.float32) -> None:
        super().__init__()
        self.logits = (3 * mx.random.normal((2, 3, vocabulary), key=mx.random.key(vocabulary))).astype(dtype)

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.logits


ARRAYS = {
    "tokens": mx.array([[1, 0, 126, 99], [5, 7, 300, 2]]),
    "mask": mx.array([[True, True, False], [True, True, True]]),
}


def log_probabilities(model: Fixed, way: str) -> np.ndarray:
    """The score, of shape (2, 3)."""
    return np.array(plain(model, way=way)(ARRAYS))


def in_double_precision(model: Fixed) -> tuple[np.ndarray, np.ndarray]:
    """The same score in float64, and the gradient of the sum of its losses by the logits."""
    logits = np.array(model.logits.astype(mx.float32)).astype(np.float64)
    targets, mask = np.array(ARRAYS["tokens"])[:, 1:, None], np.array(ARRAYS["mask"])
    powers = np.exp(logits)
    sums = powers.sum(axis=-1, keepdims=True)
    found = (np.take_along_axis(logits, targets, axis=-1) - np.log(sums))[..., 0] * mask
    gradient = powers / sums
    np.put_along_axis(gradient, targets, np.take_along_axis(gradient, targets, axis=-1) - 1, axis=-1)
    return found, gradient * mask[..., None]


@pytest.mark.parametrize("vocabulary", [301, 512, 49_152, 49_157, 151_936])
def test_the_score_and_its_gradient_are_those_of_double_precision_for_any_vocabulary(vocabulary: int) -> None:
    model = Fixed(vocabulary)
    found, slope = in_double_precision(model)

    score = log_probabilities(model, EXACT)
    gradient = mx.grad(lambda logits: -plain(lambda tokens: logits)(ARRAYS).sum())(model.logits)  # type: ignore[arg-type]

    assert np.abs(score - found).max() < 4e-6
    assert np.abs(np.array(gradient) - slope).max() < 1e-6


def test_the_way_of_before_loses_digits_and_keeps_its_bits() -> None:
    model = Fixed(151_936)
    before = -np.array(nn.losses.cross_entropy(model.logits, ARRAYS["tokens"][:, 1:])) * np.array(ARRAYS["mask"])

    score = log_probabilities(model, "every position")

    assert np.array_equal(score, before)
    assert np.abs(score - in_double_precision(model)[0]).max() > 3e-5


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_computed_as_it_was(dtype: mx.Dtype) -> None:
    model = Fixed(49_152, dtype)

    assert np.array_equal(log_probabilities(model, EXACT), log_probabilities(model, "every position"))


def test_a_vocabulary_of_one_block_is_computed_as_it_was() -> None:
    model = Fixed(127)
    tokens = {**ARRAYS, "tokens": ARRAYS["tokens"] % 127}

    assert np.array_equal(*(np.array(plain(model, way=way)(tokens)) for way in (EXACT, "every position")))
