"""A step computes what it has to and no more: its loss and gradient are those of the whole model at every position."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from small_trainings import model_of, row, rows, settings

from mlxops.config import LoraConfig
from mlxops.models.tiny import make_tiny
from mlxops.training import batches, forward, layers, score
from mlxops.training.batches import Batch
from mlxops.training.forward import Forward

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "vocab_size": 384, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "max_position_embeddings": 512,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen3_moe": {**EXPERTS, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
                  "tie_word_embeddings": True},
    "gemma2": {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 0.5},
    "gemma3_text": {"sliding_window": 4, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25, "layer_norm_eps": 1e-5, "use_qk_norm": True},
    "granite": {"logits_scaling": 2.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.3,
                "residual_multiplier": 0.5, "attention_bias": False, "mlp_bias": False},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "n_ctx": 64, "layer_norm_epsilon": 1e-5},
    "phi": {"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
}  # fmt: skip
"""Tied and untied heads, capped, scaled and biased logits, experts, sliding windows, learned and rotary positions."""


def with_live_adapter(model: nn.Module) -> nn.Module:
    """The model with weights at which every adapted layer counts."""
    mx.random.seed(5)
    fresh = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(name, mx.random.normal(each.shape) * 0.1) for name, each in fresh if "lora_b" in name], strict=False
    )
    model.train()
    return model


def architecture(name: str, config: LoraConfig) -> nn.Module:
    """A random model of an architecture of mlx-lm, ready to train."""
    module = importlib.import_module(f"mlx_lm.models.{name}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict({**SIZES, "model_type": name, **ARCHITECTURES[name]}))
    large = [(key, each * 4) for key, each in tree_flatten(model.parameters()) if each.ndim > 1]
    model.load_weights(large, strict=False)
    return with_live_adapter(layers.prepare(model, config))


def look(model: nn.Module, batch: Batch) -> Forward:
    return forward.look(model, batch.arrays["tokens"], at_head=True, at_first_trained=True)


def arrays_of(found: Forward, batch: Batch) -> dict[str, mx.array]:
    """Everything that a step can take of a batch."""
    arrays = score.arrays_of(batch, at_trained=True)
    if found.first_trained is not None:
        arrays["hidden"] = found.hidden(arrays["tokens"][:, :-1])
    return arrays


def gradient(
    model: nn.Module, of: score.Score, arrays: dict[str, mx.array]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The score of each position, and the gradient of their sum, both weighed differently by row."""
    weight = mx.arange(1, arrays["tokens"].shape[0] + 1)[:, None]

    def loss(arrays: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
        found = of(arrays)
        return (found * weight).sum(), found

    (_, found), tree = nn.value_and_grad(model, loss)(arrays)
    return np.array(found), {name: np.array(each) for name, each in tree_flatten(tree)}


def assert_same_training(model: nn.Module, found: Forward, batch: Batch, *, way: str = "") -> None:
    """Both ways give one loss at every position, and one gradient, up to the last digits of float32."""
    arrays = arrays_of(found, batch)
    expected, slopes = gradient(model, score.plain(model), {name: arrays[name] for name in ("tokens", "mask")})
    scored, gradients = gradient(model, score.at_trained_positions(found), arrays)

    np.testing.assert_allclose(scored, expected, rtol=2e-5, atol=2e-5)
    assert gradients.keys() == slopes.keys()
    largest = max(np.abs(each).max() for each in slopes.values())
    for name, each in slopes.items():
        assert np.abs(gradients[name] - each).max() < 1e-4 * largest, name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_and_its_gradient_are_those_of_the_whole_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = architecture(name, settings(num_layers=2)), batches.collate(rows(4))
    found = look(model, batch)

    assert found.notes == ()
    assert (found.layers_below, found.position_bytes, found.is_head_frozen) == (2, 4 * 32, True)
    assert_same_training(model, found, batch)
    monkeypatch.setattr(score, "_WHOLE", 0)
    monkeypatch.setattr(score, "_PIECE", 0)
    assert_same_training(model, found, batch)


def test_what_a_model_is_left_with_changes_none_of_its_results() -> None:
    plain, model = (architecture("gemma3_text", settings(num_layers=2)) for _ in range(2))
    batch = batches.collate(rows(4))
    look(model, batch)

    tokens = mx.array(batch.arrays["tokens"])

    assert np.array_equal(np.array(model(tokens)), np.array(plain(tokens)))
    assert {name for name, _ in tree_flatten(model.parameters())} == {
        name for name, _ in tree_flatten(plain.parameters())
    }


@pytest.mark.parametrize("changed", [
    {"fine_tune_type": "full"}, {"fine_tune_type": "dora"}, {"lora_dropout": 0.5}, {"grad_checkpoint": True},
])  # fmt: skip
def test_every_kind_of_training_has_a_frozen_part_below(tiny_model, changed: dict[str, Any]) -> None:
    model = with_live_adapter(model_of(tiny_model, settings(num_layers=1, **changed)))
    batch = batches.collate(rows(4))
    for each in layers.dropouts(model):
        each.take(mx.random.key(3))
    found = look(model, batch)

    assert (found.notes, found.layers_below) == ((), 3)
    assert_same_training(model, found, batch)


def test_a_packed_model_has_both_places(tmp_path) -> None:
    model = with_live_adapter(model_of(make_tiny(tmp_path / "packed", quantized=True), settings(num_layers=1)))
    batch = batches.collate(rows(4))
    found = look(model, batch)

    assert (found.notes, found.layers_below) == ((), 3)
    assert_same_training(model, found, batch)


def test_an_adapted_embedding_leaves_nothing_frozen_below(tiny_model) -> None:
    config = settings(num_layers=1, lora_keys=["self_attn.q_proj", "model.embed_tokens"])
    model = with_live_adapter(model_of(tiny_model, config))
    batch = batches.collate(rows(4))
    found = look(model, batch)

    assert (found.first_trained, found.head, found.is_head_frozen) == (None, None, False)
    assert len(found.notes) == 1


@pytest.mark.parametrize("layers_trained", [4, -1])
def test_where_every_layer_is_trained_nothing_is_below(tiny_model, layers_trained: int) -> None:
    model = with_live_adapter(model_of(tiny_model, settings(num_layers=layers_trained)))
    found = look(model, batches.collate(rows(4)))

    assert (found.first_trained, found.layers_below, found.notes) == (None, 0, ())


class Block(nn.Module):
    """A layer of a small model; `dropout` is its own."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(16, 16)
        self.dropout = nn.Dropout(dropout)

    def __call__(self, hidden: mx.array, first: mx.array | None = None) -> mx.array:
        return hidden + self.dropout(mx.tanh(self.up(hidden))) + (0 if first is None else first)


class Small(nn.Module):
    """A model that does what none of those above does.

    `shares` hands what the first layer computed to all later ones; `mixes` lets the logits of a position depend on
    those of others; `bare` projects by a product of its own, without a module. Rows of less than `from_width`
    positions are neither shared nor mixed.
    """

    def __init__(
        self,
        *,
        shares: bool = False,
        mixes: bool = False,
        bare: bool = False,
        dropout: float = 0.0,
        from_width: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(384, 16)
        self.layers = [Block(dropout), Block(), Block()]
        self.norm = nn.RMSNorm(16)
        self.head = nn.Linear(16, 384)
        self._shares, self._mixes, self._bare = shares, mixes, bare
        self._from_width = from_width

    def __call__(self, tokens: mx.array) -> mx.array:
        hidden = self.embed(tokens)
        shared = None
        is_wide = tokens.shape[1] >= self._from_width
        for layer in self.layers:
            hidden = layer(hidden, shared)
            shared = hidden if self._shares and is_wide and shared is None else shared
        hidden = self.norm(hidden)
        logits = hidden @ self.embed.weight.T if self._bare else self.head(hidden)
        return logits - logits.mean(axis=1, keepdims=True) if self._mixes and is_wide else logits


def small(**changed: Any) -> tuple[nn.Module, Batch]:
    mx.random.seed(1)
    model = layers.prepare(Small(**changed), settings(num_layers=1))
    return with_live_adapter(model), batches.collate(rows(4))


def test_a_product_without_a_module_is_told_from_the_rest_by_the_norm_before_it() -> None:
    model, batch = small(bare=True)
    found = look(model, batch)

    assert found.notes == ()
    assert_same_training(model, found, batch)


def test_logits_that_depend_on_other_positions_are_computed_at_every_position_and_it_is_said() -> None:
    model, batch = small(mixes=True)
    found = look(model, batch)

    assert found.head is None
    assert found.notes == ("the loss is computed at every position: the model's head cannot be told from the rest",)
    assert found.layers_below == 2


def test_layers_that_hand_on_more_than_one_array_are_computed_at_every_step_and_it_is_said() -> None:
    model, batch = small(shares=True)
    found = look(model, batch)

    assert found.first_trained is None
    assert found.notes == (
        "the layers below the first trained one are computed at every step: more than one array goes from them to "
        "those above",
    )
    assert_same_training(model, found, batch)


def test_what_a_model_does_at_some_shape_of_a_batch_alone_is_found_before_the_first_step() -> None:
    places = {}
    for what in ("shares", "mixes"):
        for wide in (63, 64):
            model, batch = small(**{what: True, "from_width": 64})
            tokens = batch.arrays["tokens"]
            found = forward.look(model, tokens, shapes=[(4, 16), (4, wide)], at_head=True, at_first_trained=True)
            places[what, wide] = (found.head is not None, found.first_trained is not None, len(found.notes))

    assert places == {
        ("shares", 63): (True, True, 0),
        ("shares", 64): (True, False, 1),
        ("mixes", 63): (True, True, 0),
        ("mixes", 64): (False, True, 1),
    }


def test_a_place_that_is_missing_at_a_further_shape_is_found_missing_and_leaves_the_others_as_they_are() -> None:
    model, batch = small(mixes=True, from_width=64)
    tokens = batch.arrays["tokens"]
    found = forward.look(model, tokens, shapes=[(4, 16)], at_head=True, at_first_trained=True)

    assert [forward.holds_at(found, tokens, shapes) for shapes in ([], [(1, 48)], [(1, 64)])] == [True, True, False]
    assert_same_training(model, found, batch)


def test_a_shape_at_which_a_model_does_the_same_as_before_is_traced_and_not_computed(monkeypatch) -> None:
    model = architecture("gemma3_text", settings(num_layers=2))
    compared: list[mx.array] = []
    real = forward._is_close
    monkeypatch.setattr(forward, "_is_close", lambda found, wanted: compared.append(wanted) or real(found, wanted))
    tokens = batches.collate(rows(4)).arrays["tokens"]
    counts = []
    for shapes in ([], [(4, 16)], [(4, 16), (2, 32), (4, 48)]):
        compared.clear()
        assert forward.look(model, tokens, shapes=shapes, at_head=True, at_first_trained=True).notes == ()
        counts.append(len(compared))

    # the model tried on few tokens has taps already from the look before, which changes nothing
    assert counts == [3, 3, 3]


def test_dropout_below_the_first_trained_layer_is_drawn_at_every_step_and_it_is_said() -> None:
    model, batch = small(dropout=0.5)
    for each in layers.dropouts(model):
        each.take(mx.random.key(0))
    found = look(model, batch)

    assert found.first_trained is None
    assert found.notes == (
        "the layers below the first trained one are computed at every step: there is dropout among them",
    )


def test_a_batch_without_anything_trained_has_a_loss_of_nothing(tiny_model) -> None:
    model = with_live_adapter(model_of(tiny_model, settings(num_layers=2)))
    batch = batches.collate([row(0, 9, prompt=9), row(1, 12, prompt=12)])
    found = look(model, batch)

    scored, gradients = gradient(model, score.at_trained_positions(found), arrays_of(found, batch))

    assert not scored.any()
    assert not any(each.any() for each in gradients.values())


def test_the_counts_of_projected_positions_are_few_and_never_too_small() -> None:
    for positions in (16, 64, 704, 8192):
        counts = {trained: batches.projected(trained, positions) for trained in range(positions + 1)}

        assert all(count >= trained for trained, count in counts.items())
        assert len(set(counts.values())) <= 33
        assert max(count - trained for trained, count in counts.items()) <= max(16, positions // 16)
