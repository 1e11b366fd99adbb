"""Numbers in every packing: unpacked to what the `gguf` package says, or kept packed with the same values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from gguf_blocks import PACKINGS, pack, unpacked
from gguf_models import full_config, logits_of, random_model, weights_of, write_gguf
from safetensors.numpy import load_file

from mlxops.errors import BadRequest
from mlxops.models.gguf.importing import Imported, import_gguf
from mlxops.models.gguf.numbers import can_unpack

KEPT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "MXFP4", "NVFP4")

IDS = [1, 85, 91, 300, 7, 42, 42, 199, 2, 17, 250, 33]

# Wide enough for blocks of 256, with enough matrices for every packing.
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "num_hidden_layers": 7}


@dataclass(frozen=True)
class Mixed:
    """A model in a file with a packing for each of its matrices: the file, the packings, and the numbers in it."""

    file: Path
    config: dict[str, Any]
    packings: Mapping[str, str]
    rows: Mapping[str, numpy.ndarray]
    plain: Mapping[str, numpy.ndarray]
    names: Mapping[str, str]


@pytest.fixture(scope="module", params=["llama", "phi3"])
def mixed(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """Of llama rows have to be put in order in every packing, of phi3 matrices are fused."""
    return write_mixed(full_config(request.param) | WIDE, tiny_model, tmp_path_factory.mktemp("mixed") / "tiny.gguf")


def write_mixed(config: dict[str, Any], tokenizer: Path, file: Path) -> Mixed:
    generator = numpy.random.default_rng(3)
    names = itertools.cycle(PACKINGS)
    packings: dict[str, str] = {}
    rows: dict[str, numpy.ndarray] = {}
    weights = weights_of(random_model(config))

    def packing(name: str, tensor: numpy.ndarray) -> tuple[numpy.ndarray, str]:
        packings[name] = next(names)
        rows[name] = pack(tensor, packings[name], generator)
        return rows[name], packings[name]

    write_gguf(file, config, weights, tokenizer, packing=packing)
    plain = {name: array for name, array in weights.items() if array.ndim == 1}
    # Only matrices were packed, in the order of the weights.
    matrices = [name.removesuffix(".weight") for name, array in weights.items() if array.ndim == 2]
    names_there = dict(zip(packings, matrices, strict=True))
    return Mixed(file=file, config=config, packings=packings, rows=rows, plain=plain, names=names_there)


def in_order(mixed: Mixed, old: str, array: numpy.ndarray) -> numpy.ndarray:
    """Rows of a llama's q and k as they were before they were put in turns."""
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(old.split(".")[-2])
    if heads is None or mixed.config["model_type"] != "llama":
        return array
    turns = array.reshape(mixed.config[heads], -1, 2, array.shape[1])
    return numpy.concatenate([turns[:, :, 0], turns[:, :, 1]], axis=1).reshape(array.shape)


def expected(mixed: Mixed) -> dict[str, numpy.ndarray]:
    """The numbers of each matrix, under its name in mlx-lm."""
    return {
        mixed.names[old]: in_order(mixed, old, unpacked(rows, mixed.packings[old])) for old, rows in mixed.rows.items()
    }


def logits_with(mixed: Mixed, numbers: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
    """What the original says with these numbers in place of its own."""
    import mlx.core as mx

    model = random_model(mixed.config)
    model.load_weights([(name, mx.array(array)) for name, array in numbers.items()])
    return logits_of(model, IDS)


def loaded(folder: Path) -> Any:
    """The model as anybody loads it, computing in float32."""
    import mlx.core as mx
    import mlx_lm

    model = mlx_lm.load(str(folder))[0]
    model.set_dtype(mx.float32)
    return model


def test_every_packing_is_in_the_mixed_model(mixed: Mixed) -> None:
    assert sorted(set(mixed.packings.values())) == sorted(PACKINGS)
    assert all(map(can_unpack, PACKINGS))


def test_every_packing_is_unpacked_to_the_same_numbers(mixed: Mixed, tmp_path: Path) -> None:
    import_gguf(mixed.file, tmp_path / "imported", dtype="float32")

    tensors, numbers = load_file(tmp_path / "imported" / "model.safetensors"), expected(mixed)
    assert {
        mixed.packings[old]
        for old in mixed.rows
        if not numpy.array_equal(tensors[f"{mixed.names[old]}.weight"], numbers[mixed.names[old]])
    } == set()


@pytest.mark.slow
def test_a_model_of_all_packings_says_what_its_numbers_say(mixed: Mixed, tmp_path: Path) -> None:
    import_gguf(mixed.file, tmp_path / "imported", dtype="float32")

    numbers = {f"{name}.weight": array for name, array in expected(mixed).items()} | mixed.plain
    wanted = logits_with(mixed, numbers)
    assert numpy.abs(logits_of(loaded(tmp_path / "imported"), IDS) - wanted).max() < 1e-5 * numpy.abs(wanted).max()


def test_what_is_kept_packed_has_the_same_values(mixed: Mixed, tmp_path: Path) -> None:
    import_gguf(mixed.file, tmp_path / "imported", dtype="keep")

    tensors, numbers = kept_tensors(tmp_path / "imported"), expected(mixed)
    packed = {mixed.names[old]: packing for old, packing in mixed.packings.items() if packing in KEPT}
    assert packed.keys() == tensors.keys()
    assert set(packed.values()) == set(KEPT)
    assert {packed[name] for name in packed if not numpy.array_equal(tensors[name], numbers[name])} == set()


def kept_tensors(folder: Path) -> dict[str, numpy.ndarray]:
    """The numbers of the packed matrices, unpacked by MLX in float32 as config.json says."""
    import mlx.core as mx

    arrays: Any = mx.load(str(folder / "model.safetensors"))
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    general = {key: value for key, value in quantization.items() if not isinstance(value, dict)}
    found = {}
    for name in (name.removesuffix(".scales") for name in arrays if name.endswith(".scales")):
        own = quantization.get(name, general)
        parts = [arrays[f"{name}.{part}"] for part in ("weight", "scales", "biases") if f"{name}.{part}" in arrays]
        if len(parts) == 3:
            parts[1:] = [part.astype(mx.float32) for part in parts[1:]]
            found[name] = numpy.array(mx.dequantize(*parts, **own))
        else:
            found[name] = numpy.array(mx.dequantize(*parts, **own, dtype=mx.float32))
    return found


@pytest.mark.slow
def test_a_kept_model_says_what_its_numbers_say(mixed: Mixed, tmp_path: Path) -> None:
    import_gguf(mixed.file, tmp_path / "imported", dtype="keep")

    kept = {mixed.names[old] for old, packing in mixed.packings.items() if packing in KEPT}
    numbers = {
        f"{name}.weight": array if name in kept else in_half(array) for name, array in expected(mixed).items()
    } | {name: in_half(array) for name, array in mixed.plain.items()}
    wanted = logits_with(mixed, numbers)
    assert numpy.abs(logits_of(loaded(tmp_path / "imported"), IDS) - wanted).max() < 1e-5 * numpy.abs(wanted).max()


def in_half(array: numpy.ndarray) -> numpy.ndarray:
    return array.astype(numpy.float16).astype(numpy.float32)


def test_the_notes_count_what_was_kept_and_what_not(mixed: Mixed, tmp_path: Path) -> None:
    imported = import_gguf(mixed.file, tmp_path / "imported", dtype="keep")

    count = sum(packing == "Q4_K" for packing in mixed.packings.values())
    assert f"{count} Q4_K" in imported.notes[0]
    assert imported.notes[0].startswith("kept packed: ")
    assert imported.notes[1].startswith("unpacked to float16: ")
    assert f"{sum(packing == 'Q6_K' for packing in mixed.packings.values())} Q6_K" in imported.notes[1]


@pytest.mark.parametrize(("packing", "dtype"), [("F32", "float32"), ("BF16", "bfloat16"), ("F16", "float16")])
def test_a_kept_file_without_packed_numbers_keeps_its_dtype(
    packing: str, dtype: str, tiny_model: Path, tmp_path: Path
) -> None:
    imported = import_one_packing(packing, tiny_model, tmp_path, "keep")

    config = json.loads((tmp_path / "imported" / "config.json").read_text())
    assert (imported.info.dtype, config["torch_dtype"], imported.notes) == (dtype, dtype, ())


def import_one_packing(packing: str, tiny_model: Path, tmp_path: Path, dtype: Any) -> Imported:
    config = full_config("qwen2")
    generator = numpy.random.default_rng(4)
    write_gguf(
        tmp_path / "tiny.gguf",
        config,
        weights_of(random_model(config)),
        tiny_model,
        packing=lambda _, tensor: (pack(tensor, packing, generator), packing),
    )
    return import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype=dtype)


def test_bfloat16_is_rounded_to_the_nearest(tiny_model: Path, tmp_path: Path) -> None:
    import mlx.core as mx

    import_one_packing("F32", tiny_model, tmp_path, "bfloat16")

    arrays: Any = mx.load(str(tmp_path / "imported" / "model.safetensors"))
    original = random_model(full_config("qwen2"))
    assert mx.array_equal(arrays["model.norm.weight"], original.model.norm.weight.astype(mx.bfloat16))
    assert mx.array_equal(arrays["lm_head.weight"], original.lm_head.weight.astype(mx.bfloat16))


@pytest.mark.parametrize(
    ("number", "dtype", "message"),
    [
        (1e5, "float16", "too large for float16"),
        (numpy.nan, "float32", "not finite"),
        (numpy.inf, "keep", "not finite"),
    ],
)
def test_a_number_that_cannot_be_held_is_named(
    number: float, dtype: Any, message: str, tiny_model: Path, tmp_path: Path
) -> None:
    config = full_config("qwen2")
    weights = weights_of(random_model(config))
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = number
    write_gguf(tmp_path / "tiny.gguf", config, weights, tiny_model)

    with pytest.raises(BadRequest, match=rf"blk\.1\.ffn_up\.weight holds .*{message}"):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype=dtype)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.gguf"]


@pytest.mark.parametrize(("packing", "first", "value"), [("Q8_0", 1, 0x7F), ("MXFP4", 0, 255), ("NVFP4", 2, 200)])
def test_a_scale_without_a_counterpart_is_named(
    packing: str, first: int, value: int, tiny_model: Path, tmp_path: Path
) -> None:
    config = full_config("qwen2") | {"intermediate_size": 128}
    generator = numpy.random.default_rng(4)

    def spoilt(name: str, tensor: numpy.ndarray) -> tuple[numpy.ndarray, str]:
        rows = pack(tensor, packing, generator)
        if name == "blk.1.ffn_up.weight":
            rows[5, first] = value
        return rows, packing

    write_gguf(tmp_path / "tiny.gguf", config, weights_of(random_model(config)), tiny_model, packing=spoilt)

    with pytest.raises(BadRequest, match=r"blk\.1\.ffn_up\.weight has a scale that cannot be kept"):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep")


@pytest.mark.parametrize("packing", ["Q8_K", "Q1_0", "I32"])
def test_a_packing_that_nobody_unpacks_is_named(packing: str, tiny_model: Path, tmp_path: Path) -> None:
    config = full_config("qwen2") | {"hidden_size": 256, "intermediate_size": 256}
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[packing]]

    def unknown(name: str, tensor: numpy.ndarray) -> tuple[numpy.ndarray, str]:
        if packing == "I32":
            return tensor.astype(numpy.int32), packing
        return numpy.zeros((len(tensor), tensor.shape[1] // block * size), numpy.uint8), packing

    write_gguf(tmp_path / "tiny.gguf", config, weights_of(random_model(config)), tiny_model, packing=unknown)

    with pytest.raises(BadRequest, match=f"token_embd.weight is packed as {packing}"):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="float32")
