"""The headers of weight files say what a model is, and damage shows in them before a number is read."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxops.errors import BadRequest
from mlxops.models.folders import check_model
from mlxops.models.weight_headers import Tensor, embedding_rows, learned_positions, read_headers


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "tiny"))


def write(file: Path, header: object, data: bytes = b"") -> None:
    """A safetensors file of this header."""
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"not JSON",
        b"[]",
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F32", "data_offsets": [0, 4]}},
        {"a": {"shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": ["many"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": []}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}},
    ],
)
def test_a_header_that_is_none_is_damage(model: Path, header: object) -> None:
    write(model / "model.safetensors", header, b"\0" * 4)

    with pytest.raises(BadRequest, match=r"model\.safetensors (is damaged|has \d+ bytes)") as caught:
        check_model(model)

    assert "download may have broken off" in (caught.value.hint or "")


@pytest.mark.parametrize("size", [0, 7, 8, 100])
def test_a_file_that_ends_in_its_header_is_damage(model: Path, size: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])

    with pytest.raises(BadRequest, match="is damaged"):
        check_model(model)


@pytest.mark.parametrize("begin", [pickle.dumps({"a": 1}), b"PK\x03\x04" + b"\0" * 100])
def test_pickled_weights_are_named_and_never_read(model: Path, begin: bytes) -> None:
    (model / "model.safetensors").write_bytes(begin)

    with pytest.raises(BadRequest, match="pickled weights under the name of safetensors"):
        check_model(model)


def test_a_whole_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    write(tmp_path / "model.safetensors", header.ljust(0x0280), b"\0" * 4)

    assert read_headers(tmp_path) == {"a": Tensor("F32", (1,))}


def test_a_header_that_another_model_has_too_still_says_how_long_a_file_is(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    for name, data in (("whole", b"1234"), ("cut", b"123")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "model.safetensors", header, data)

    assert read_headers(tmp_path / "whole") == {"a": Tensor("F32", (1,))}
    with pytest.raises(BadRequest, match=r"cut/model\.safetensors has \d+ bytes where"):
        read_headers(tmp_path / "cut")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "pickled weights can run code"),
        ("consolidated.00.pth", "pickled weights can run code"),
        ("weights.npz", "pickled weights can run code"),
        ("weights.00.safetensors", "`mlx_lm.convert`"),
        ("tiny.gguf", "`inv model.import`"),
    ],
)
def test_weights_of_another_kind_are_named_with_what_helps(model: Path, name: str, words: str) -> None:
    (model / "model.safetensors").rename(model / name)

    with pytest.raises(BadRequest, match=f"only {name}") as caught:
        check_model(model)

    assert words in (caught.value.hint or "")


def _name_a_missing_shard(folder: Path) -> None:
    places = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _lack_shards_without_an_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00002-of-00006.safetensors")


def _link_a_shard_nowhere(folder: Path) -> None:
    _name_a_missing_shard(folder)
    (folder / "model-00002-of-00002.safetensors").symlink_to("../blobs/gone")


def _map_without_names(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}')


def _map_that_is_none(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_name_a_missing_shard, r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors"),
        (_lack_shards_without_an_index, r"lacks 5 of 6 weight files: model-00001-of-00006\.safetensors, .* and 2 more"),
        (_link_a_shard_nowhere, r"model-00002-of-00002\.safetensors is a link that leads nowhere"),
        (_map_without_names, "weight_map does not name the files"),
        (_map_that_is_none, "weight_map does not name the files"),
    ],
)
def test_missing_shards_are_named(model: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(model)

    with pytest.raises(BadRequest, match=words):
        check_model(model)


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
        "transformer.wte.weight",
        "wte.weight",
        "backbone.embeddings.weight",
        "gpt_neox.embed_in.weight",
        "model.tok_embeddings.weight",
    ],
)
def test_the_rows_of_the_embedding_are_those_of_the_token_ids(name: str) -> None:
    others = {
        "vision_tower.embeddings.weight": Tensor("F32", (9000, 8)),
        "model.embed_tokens_per_layer.weight": Tensor("F32", (8000, 8)),
        "position_embeddings.weight": Tensor("F32", (7000, 8)),
        "model.layers.0.weight": Tensor("F32", (6000, 8)),
    }

    assert embedding_rows({**others, name: Tensor("F32", (384, 64))}) == 384
    assert embedding_rows(others) is None


def test_positions_are_limited_where_they_are_learned() -> None:
    assert learned_positions({"transformer.wpe.weight": Tensor("F32", (1024, 64))}) == 1024
    assert learned_positions({"model.embed_tokens.weight": Tensor("F32", (384, 64))}) is None
