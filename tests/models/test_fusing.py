"""A fused model says what base model and adapter say, for every kind of adapter, and is saved as it was loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from small_adapters import KINDS, make_adapter, spec

from mlxops.errors import BadRequest
from mlxops.models import fusing, saving
from mlxops.models.adapter_slot import AdapterSlot
from mlxops.models.loading import load_model

pytestmark = pytest.mark.slow

TOKENS = mx.array([[1, 5, 9, 3, 7, 2, 8, 4]])


def adapted(folder: Path, adapter: Path) -> tuple[Any, dict[str, Any]]:
    model, config = load_model(folder)
    types = fusing.types_of(model)
    AdapterSlot(model).put_in(spec(adapter))
    fusing.restore_types(model, types)
    return model, config


def difference(one: mx.array, other: mx.array) -> float:
    return float(np.abs(np.array(one.astype(mx.float32)) - np.array(other.astype(mx.float32))).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_model_says_what_base_and_adapter_say(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    model, _ = adapted(tiny_model, make_adapter(tiny_model, tmp_path / "a", *KINDS[kind]))
    before, base = model(TOKENS), load_model(tiny_model)[0](TOKENS)

    fusing.fuse_layers(model)

    assert [name for name, module in model.named_modules() if hasattr(module, "fuse")] == []
    assert difference(model(TOKENS), before) < 1e-5
    assert difference(base, before) > 0.01


@pytest.mark.parametrize("keys", [None, ["mlp.switch_mlp.up_proj", "self_attn.v_proj"]], ids=["all", "some"])
def test_fused_experts_say_what_they_said(tiny_experts: Path, tmp_path: Path, keys: list[str] | None) -> None:
    model, _ = adapted(tiny_experts, make_adapter(tiny_experts, tmp_path / "a", "lora", 2, 4, keys))
    before = model(TOKENS)

    fusing.fuse_layers(model)

    assert difference(model(TOKENS), before) < 1e-5


def test_packed_experts_stay_packed_or_are_unpacked_without_a_loss(tiny_experts: Path, tmp_path: Path) -> None:
    model, config = load_model(tiny_experts)
    model, config = utils.quantize_model(model, config, 32, 4)
    packed = shutil.copytree(tiny_experts, tmp_path / "packed")
    (packed / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(packed / "model.safetensors"), dict(tree_flatten(model.parameters())))
    adapter = make_adapter(packed, tmp_path / "a", "lora", 2, 4, None)
    model, _ = adapted(packed, adapter)
    before = model(TOKENS)

    unpacked, config = adapted(packed, adapter)
    fusing.fuse_layers(unpacked, dequantize=True)
    fusing.unpack(unpacked, config)
    fusing.fuse_layers(model)

    assert type(model.layers[1].mlp.switch_mlp.up_proj) is QuantizedSwitchLinear
    assert difference(unpacked(TOKENS), before) < 1e-5
    assert difference(model(TOKENS), before) > 1e-3


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_quantized_model_stays_so_or_is_unpacked_without_a_loss(
    tiny_quantized_model: Path, tmp_path: Path, kind: str
) -> None:
    adapter = make_adapter(tiny_quantized_model, tmp_path / "a", kind, 2, 8, None)
    model, config = adapted(tiny_quantized_model, adapter)
    before = model(TOKENS)

    unpacked, _ = adapted(tiny_quantized_model, adapter)
    names = fusing.fuse_layers(unpacked, dequantize=True)
    without = fusing.unpack(unpacked, config)
    fusing.fuse_layers(model)

    kinds = {type(dict(model.named_modules())[name]) for name in names}
    assert kinds == {nn.QuantizedLinear}
    assert not any(isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)) for module in unpacked.modules())
    assert ("quantization" in config, "quantization" in without) == (True, False)
    assert difference(unpacked(TOKENS), before) < 1e-5
    assert difference(model(TOKENS), before) > 1e-3


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_fused_model_has_the_types_of_its_base(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    folder = in_bfloat16(tiny_model, tmp_path / "half")
    model, _ = adapted(folder, make_adapter(tiny_model, tmp_path / "a", kind, 2, 8, None))

    fusing.fuse_layers(model)

    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.bfloat16}


def in_bfloat16(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    weights = {name: array.astype(mx.bfloat16) for name, array in mx.load(str(source / "model.safetensors")).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def test_half_precision_is_rounded_once(tiny_model: Path, tmp_path: Path) -> None:
    folder = in_bfloat16(tiny_model, tmp_path / "half")
    adapter = make_adapter(tiny_model, tmp_path / "a", "lora", 2, 8, None)
    model, _ = adapted(folder, adapter)
    weights, change = mx.load(str(folder / "model.safetensors")), mx.load(str(adapter / "adapters.safetensors"))
    name = "model.layers.3.self_attn.q_proj"
    wanted = weights[f"{name}.weight"].astype(mx.float32) + 4 * (change[f"{name}.lora_a"] @ change[f"{name}.lora_b"]).T

    fusing.fuse_layers(model)

    assert mx.array_equal(model.layers[3].self_attn.q_proj.weight, wanted.astype(mx.bfloat16))


def test_a_saved_model_loads_as_it_was_and_keeps_the_tokenizers_bytes(tiny_model: Path, tmp_path: Path) -> None:
    (source := shutil.copytree(tiny_model, tmp_path / "base")).joinpath("LICENSE").write_text("as you like")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    model, config = adapted(source, make_adapter(tiny_model, tmp_path / "a", "lora", 2, 8, None))
    fusing.fuse_layers(model)
    said = model(TOKENS)
    mx.eval(said)
    (folder := tmp_path / "fused").mkdir()

    told: list[tuple[int, int]] = []
    saving.save(folder, model, config, source=source, progress=lambda *done: told.append(done))

    loaded, _ = utils.load_model(folder)
    assert mx.array_equal(loaded(TOKENS), said)
    kept = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE"]
    kept.append("additional_chat_templates/tools.jinja")
    assert [name for name in kept if (folder / name).read_bytes() != (source / name).read_bytes()] == []
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert told == [(done, 38) for done in range(1, 39)]


def test_a_large_model_is_saved_in_several_files(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = load_model(tiny_model)
    said = model(TOKENS)
    mx.eval(said)
    monkeypatch.setattr(utils, "make_shards", two_halves)

    saving.save(tmp_path, model, config, source=tiny_model, progress=lambda done, total: None)

    files = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert {name: file for file in files for name in mx.load(str(tmp_path / file))} == index["weight_map"]
    assert mx.array_equal(utils.load_model(tmp_path)[0](TOKENS), said)


def two_halves(arrays: dict[str, mx.array]) -> list[dict[str, mx.array]]:
    names = list(arrays)
    return [{name: arrays[name] for name in part} for part in (names[:20], names[20:])]


def test_equal_arrays_are_shared(tiny_model: Path) -> None:
    one, other = load_model(tiny_model)[0], load_model(tiny_model)[0]
    other.layers[0].mlp.up_proj.weight = other.layers[0].mlp.up_proj.weight + 1
    said = other(TOKENS)

    fusing.share(one, other)

    assert other.layers[1].mlp.up_proj.weight is one.layers[1].mlp.up_proj.weight
    assert other.layers[0].mlp.up_proj.weight is not one.layers[0].mlp.up_proj.weight
    assert mx.array_equal(other(TOKENS), said)


def test_experts_packed_with_scales_of_their_own_are_refused(tiny_experts: Path, tmp_path: Path) -> None:
    model, config = load_model(tiny_experts)
    model, config = utils.quantize_model(model, config, 16, 4, mode="nvfp4", global_scale=True)

    with pytest.raises(BadRequest, match="is packed with a scale for each expert"):
        fusing.unpack(model, config)


def test_dora_of_packed_embeddings_is_refused(tiny_quantized_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_quantized_model, tmp_path / "a", "dora", 1, 4, ["model.embed_tokens"])
    model, _ = adapted(tiny_quantized_model, adapter)

    with pytest.raises(BadRequest, match="mlx-lm cannot compute DoRA of quantized embeddings"):
        fusing.fuse_layers(model, dequantize=True)
