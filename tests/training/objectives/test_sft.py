"""The loss is that of an independent computation, and nothing outside the mask reaches it."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy_llama
import pytest
from mlx.utils import tree_flatten
from small_trainings import SMALL, model_of, row, row_losses, rows, settings, weights_of

from mlxops.rows import TokenRow
from mlxops.training.batches import Batch, collate
from mlxops.training.objectives import sft
from mlxops.training.score import arrays_of, plain


def with_tokens(batch: Batch, tokens: np.ndarray) -> Batch:
    return replace(batch, arrays={**batch.arrays, "tokens": tokens})


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

    expected = numpy_llama.row_losses(weights_of(model), batch.arrays["tokens"], batch.arrays["mask"], scale=2.0)

    np.testing.assert_allclose(row_losses(model, batch), expected, rtol=1e-5)


def test_the_losses_of_a_full_fine_tuning_are_those_of_numpy(tiny_model):
    model = model_of(tiny_model, settings(fine_tune_type="full"))
    batch = collate(rows(5))

    expected = numpy_llama.row_losses(weights_of(model), batch.arrays["tokens"], batch.arrays["mask"], scale=0.0)

    np.testing.assert_allclose(row_losses(model, batch), expected, rtol=1e-5)


def test_what_stands_in_the_padding_changes_nothing(model):
    batch = collate([row(0, 20), row(1, 6)])
    other = batch.arrays["tokens"].copy()
    other[0, 20:], other[1, 6:] = 300, 200

    np.testing.assert_array_equal(row_losses(model, with_tokens(batch, other)), row_losses(model, batch))


def test_a_row_costs_the_same_beside_a_longer_one(model):
    alone, beside = collate([row(1, 6)]), collate([row(0, 40), row(1, 6)])

    np.testing.assert_allclose(row_losses(model, beside)[1], row_losses(model, alone)[0], rtol=1e-5)


def test_the_prompt_is_read_but_not_trained(model):
    batch = collate([row(0, 20, prompt=10)])
    whole = collate([row(0, 20, prompt=0)])
    other = batch.arrays["tokens"].copy()
    other[0, 2] = 300

    assert row_losses(model, batch)[0] < row_losses(model, whole)[0]
    assert row_losses(model, with_tokens(batch, other))[0] != row_losses(model, batch)[0]


def test_an_empty_mask_is_a_loss_and_a_gradient_of_zero(model):
    batch = collate([row(0, 20)])
    arrays = arrays_of(batch) | {"mask": mx.zeros(batch.arrays["mask"].shape, mx.bool_)}

    loss, gradient = nn.value_and_grad(model, lambda arrays: sft.terms(plain(model), arrays)["loss"].sum())(arrays)

    assert loss.item() == 0
    assert max(float(mx.abs(each).max()) for _, each in tree_flatten(gradient)) == 0


def test_the_losses_of_half_precision_are_summed_in_full(tiny_model):
    model = model_of(tiny_model, SMALL)
    model.set_dtype(mx.bfloat16)

    assert sft.terms(plain(model), arrays_of(collate(rows(5))))["loss"].dtype == mx.float32


def test_a_row_weighs_as_much_as_it_has_trained_tokens():
    several = [row(0, 20, prompt=10), row(1, 6, prompt=0), TokenRow(tokens=row(2, 9).tokens, spans=(), origin="f:3")]

    assert sft.SUPERVISED.weights(collate(several))["loss"].tolist() == [10, 5, 0]
