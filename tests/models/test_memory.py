"""The memory of a training and of making text, estimated from a model's files, is what MLX then needs."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from conftest import ROOT
from mlx.utils import tree_flatten

from mlxops.jobs.train.memory import trained_part
from mlxops.models import memory
from mlxops.models.loading import load_model
from mlxops.models.tiny import make_tiny
from mlxops.models.weight_headers import Tensor
from mlxops.training import layers

sys.path.append(str(ROOT / "benchmarks"))

import memory_estimate
from memory_estimate import Case

MEASURED = (
    "tiny", "long rows", "vocabulary 16k", "8 layers, 1 trained", "8 layers, recomputed", "dora", "full",
    "full, adam, short rows", "4 bits", "bfloat16",
)  # fmt: skip
BOUND = 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_peak_of_a_training_is_within_15_percent_of_the_estimate(tmp_path: Path, name: str) -> None:
    (case,) = [each for each in memory_estimate.CASES if each.name == name]
    model = memory_estimate.make(case, tmp_path)

    found = memory_estimate.predicted(model, case).peak

    assert found == pytest.approx(memory_estimate.measured(model, case), rel=BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("case", memory_estimate.TEXTS, ids=lambda case: case.name)
def test_the_peak_of_making_text_is_within_15_percent_of_the_estimate(tmp_path: Path, case: Case) -> None:
    model = memory_estimate.make(case, tmp_path)

    found = memory_estimate.predicted_text(model, case).peak

    assert found == pytest.approx(memory_estimate.measured_text(model, case), rel=BOUND)


@pytest.mark.slow
def test_the_estimates_of_a_real_model_are_within_15_percent(smollm2: Path) -> None:
    trains = Case(name="trains", settings={"num_layers": 4}, rows=1, width=48)
    talks = memory_estimate.REAL_TEXTS[0]

    found = memory_estimate.predicted(smollm2, trains).peak, memory_estimate.predicted_text(smollm2, talks).peak

    measured = memory_estimate.measured(smollm2, trains), memory_estimate.measured_text(smollm2, talks)
    assert found == pytest.approx(measured, rel=BOUND)


def test_loading_in_another_type_takes_no_more_memory_than_the_model(tmp_path: Path) -> None:
    # the few tensors that MLX has not let go of yet are a small share of many; two types of all are 1.5 times as much
    folder = make_tiny(tmp_path / "model", layers=32)
    model, _ = load_model(folder)
    model.set_dtype(mx.bfloat16)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    del model
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()

    model, _ = load_model(folder, dtype="float32")

    held = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    assert mx.get_peak_memory() - before == pytest.approx(held, rel=0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_layers": 2, "lora_rank": 3},
        {"lora_keys": ["self_attn.q_proj", "mlp.up_proj"]},
        {"fine_tune_type": "dora"},
        {"fine_tune_type": "full", "num_layers": 1},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_trained_has_the_size_of_the_estimate(
    tiny_model: Path, tiny_quantized_model: Path, settings: dict[str, Any], packed: bool
) -> None:
    if packed and settings.get("fine_tune_type") == "full":
        settings = {}
    source = tiny_quantized_model if packed else tiny_model
    case = Case(name="", settings=settings)
    model, _ = load_model(source)
    held = sum(value.nbytes for _, value in tree_flatten(model.parameters()))

    trained = layers.trainable(layers.prepare(model, memory_estimate.config_of(case)))

    found = memory_estimate.predicted(source, case)
    assert found.model == held
    assert found.gradients == sum(value.nbytes for value in trained.values())


def test_a_type_of_half_the_size_halves_what_is_not_packed(tiny_model: Path) -> None:
    shape = memory.shape_of(tiny_model)

    full, half = (
        memory.generating(shape, tokens=100, dtype=dtype, keeps_scores=True) for dtype in ("float32", "bfloat16")
    )

    assert (full.model, full.cache, full.activations) == (2 * half.model, 2 * half.cache, 2 * half.activations)


def test_logits_count_where_the_loss_is_computed_alone(tiny_model: Path) -> None:
    shape, trained = memory.shape_of(tiny_model), trained_part(memory_estimate.config_of(Case(name="")), 4)

    every, some = (
        memory.training(shape, trained, rows=2, width=64, dtype="float32", keeps_scores=True, projected=projected)
        for projected in (None, 32)
    )

    assert every.logits == 4 * some.logits
    assert every.activations == some.activations


def test_of_experts_those_that_compute_a_token_count() -> None:
    tensors = {
        "model.embed_tokens.weight": Tensor("F32", (300, 8)),
        "model.layers.0.mlp.switch_mlp.up_proj.weight": Tensor("F32", (16, 32, 8)),
        "model.layers.0.mlp.gate.weight": Tensor("F32", (16, 8)),
        "model.layers.0.input_layernorm.weight": Tensor("F32", (8,)),
    }
    config = {"hidden_size": 8, "num_attention_heads": 2, "num_experts_per_tok": 2}

    shape = memory.shape(config, tensors)

    (layer,) = shape.layers
    assert [(each.name, each.inputs, each.outputs, each.copies, each.active) for each in layer.matrices] == [
        ("mlp.switch_mlp.up_proj", 8, 32, 16, 2),
        ("mlp.gate", 8, 16, 1, 1),
    ]
    assert layer.numbers == 16 * 32 * 8 + 16 * 8 + 8
    assert (shape.vocabulary, shape.cached, shape.numbers) == (300, 16, layer.numbers + 2400)


def test_a_model_whose_config_says_little_has_an_estimate(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))

    found = memory.generating(memory.shape_of(folder), tokens=100, dtype="float32", keeps_scores=True)

    assert found.model > 0
    assert found.peak >= found.model
