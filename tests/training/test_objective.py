"""The loss is that of an independent computation, and nothing outside the mask reaches it."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy_llama
import pytest
from mlx.utils import tree_flatten
from small_trainings import SMALL, model_of, row, rows, settings, weights_of

from mlxops.training.batches import collate
from mlxops.training.objective import row_losses


def losses(model: nn.Module, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.array(row_losses(model, mx.array(tokens), mx.array(mask)))


def with_a_live_adapter(model: nn.Module) -> nn.Module:
    """A fresh adapter adds nothing: its second matrix is zero."""
    mx.random.seed(1)
    changed = [
        (name, mx.random.normal(value.shape) * 0.1)
        for name, value in tree_flatten(model.trainable_parameters())
        if name.endswith("lora_b")
    ]
    model.load_weights(changed, strict=False)
    return model


@pytest.fixture(scope="module")
def model(tiny_model):
    return with_a_live_adapter(model_of(tiny_model, SMALL))


def test_the_losses_are_those_of_numpy(model):
    batch = collate(rows(5))

    expected = numpy_llama.row_losses(weights_of(model), batch.tokens, batch.mask, scale=2.0)

    np.testing.assert_allclose(losses(model, batch.tokens, batch.mask), expected, rtol=1e-5)


def test_the_losses_of_a_full_fine_tuning_are_those_of_numpy(tiny_model):
    model = model_of(tiny_model, settings(fine_tune_type="full"))
    batch = collate(rows(5))

    expected = numpy_llama.row_losses(weights_of(model), batch.tokens, batch.mask, scale=0.0)

    np.testing.assert_allclose(losses(model, batch.tokens, batch.mask), expected, rtol=1e-5)


def test_what_stands_in_the_padding_changes_nothing(model):
    batch = collate([row(0, 20), row(1, 6)])
    other = batch.tokens.copy()
    other[0, 20:], other[1, 6:] = 300, 200

    np.testing.assert_array_equal(losses(model, other, batch.mask), losses(model, batch.tokens, batch.mask))


def test_a_row_costs_the_same_beside_a_longer_one(model):
    alone, beside = collate([row(1, 6)]), collate([row(0, 40), row(1, 6)])

    np.testing.assert_allclose(
        losses(model, beside.tokens, beside.mask)[1], losses(model, alone.tokens, alone.mask)[0], rtol=1e-5
    )


def test_the_prompt_is_read_but_not_trained(model):
    batch = collate([row(0, 20, prompt=10)])
    whole = collate([row(0, 20, prompt=0)])
    other = batch.tokens.copy()
    other[0, 2] = 300

    assert losses(model, batch.tokens, batch.mask)[0] < losses(model, whole.tokens, whole.mask)[0]
    assert losses(model, other, batch.mask)[0] != losses(model, batch.tokens, batch.mask)[0]


def test_an_empty_mask_is_a_loss_and_a_gradient_of_zero(model):
    batch = collate([row(0, 20)])
    nothing = mx.zeros(batch.mask.shape, mx.bool_)

    loss, gradient = nn.value_and_grad(model, lambda tokens: row_losses(model, tokens, nothing).sum())(
        mx.array(batch.tokens)
    )

    assert loss.item() == 0
    assert max(float(mx.abs(each).max()) for _, each in tree_flatten(gradient)) == 0


def test_the_losses_of_half_precision_are_summed_in_full(tiny_model):
    model = model_of(tiny_model, SMALL)
    model.set_dtype(mx.bfloat16)
    batch = collate(rows(5))

    found = row_losses(model, mx.array(batch.tokens), mx.array(batch.mask))

    assert found.dtype == mx.float32
