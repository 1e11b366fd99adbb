"""What is read of an adapter folder that another program wrote: which file, of which iteration, of which shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from mlxops.adapters import foreign
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, NotFound
from mlxops.options import given, resolve


def write_adapter(path: Path, *, seed: float = 0, layers: tuple[int, ...] = (2, 3), rank: int = 4) -> None:
    path.parent.mkdir(exist_ok=True)
    found = {}
    for layer in layers:
        name = f"model.layers.{layer}.self_attn.q_proj"
        found[f"{name}.lora_a"] = np.full((8, rank), seed, np.float32)
        found[f"{name}.lora_b"] = np.full((rank, 8), seed, np.float32)
    safetensors.numpy.save_file(found, path)


def write_settings(folder: Path, **settings: Any) -> None:
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.0}
    known = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, "iters": 100}
    (folder / "adapter_config.json").write_text(json.dumps(known | settings))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with files of 20 and 40, and an `adapters.safetensors` unlike both."""
    folder = tmp_path / "old"
    for seed, name in ((1, "0000020_adapters"), (2, "0000040_adapters"), (3, "adapters")):
        write_adapter(folder / f"{name}.safetensors", seed=seed)
    write_settings(folder)
    return folder


def test_weights_unlike_every_numbered_file_are_the_last_of_the_training(old: Path) -> None:
    assert foreign.read(old, layers=4).iteration == 100


def test_weights_that_equal_a_numbered_file_are_of_its_iteration(old: Path) -> None:
    write_adapter(old / "adapters.safetensors", seed=2)

    assert foreign.read(old, layers=4).iteration == 40


def test_a_file_is_of_the_iteration_in_its_name(old: Path) -> None:
    found = foreign.read(old / "0000020_adapters.safetensors", layers=4)

    assert (found.iteration, found.name) == (20, "0000020_adapters.safetensors")


def test_without_a_final_file_the_newest_numbered_one_is_taken(old: Path) -> None:
    (old / "adapters.safetensors").unlink()

    assert foreign.read(old, layers=4).iteration == 40


def test_what_is_read_is_the_same_after_the_originals_were_kept(old: Path) -> None:
    before = foreign.read(old, layers=4)

    foreign.keep_originals(old, 40)
    after = foreign.read(old, layers=4)

    assert (after.iteration, after.sha256, after.shape) == (before.iteration, before.sha256, before.shape)
    assert sorted(path.name for path in old.glob("*.before")) == [
        *("0000040_adapters.safetensors.before", "adapter_config.json.before", "adapters.safetensors.before")
    ]


def test_keeping_the_originals_twice_is_keeping_them_once(old: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    foreign.keep_originals(old, 20)
    (old / "adapters.safetensors").unlink()
    write_adapter(old / "adapters.safetensors", seed=9)

    foreign.keep_originals(old, 20)

    assert {path.name.removesuffix(".before"): path.read_bytes() for path in old.glob("*.before")} == before


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, {"fine_tune_type": "lora", "num_layers": 2, "lora_rank": 4, "lora_scale": 20.0, "lora_keys": []}),
        ({"num_layers": 16}, {"num_layers": 4}),
        ({"num_layers": None, "lora_layers": 2}, {"num_layers": 2}),
        ({"use_dora": True, "fine_tune_type": None}, {"fine_tune_type": "dora"}),
        ({"lora_parameters": {"rank": 4, "alpha": 8, "scale": 10}}, {"lora_scale": 20.0}),
        (
            {"lora_parameters": {"rank": 4, "scale": 1, "keys": ["b", "a"]}},
            {"lora_scale": 1.0, "lora_keys": ["b", "a"]},
        ),
    ],
)
def test_a_shape_is_read_in_the_words_of_every_version(
    old: Path, settings: dict[str, Any], shape: dict[str, Any]
) -> None:
    write_settings(old, **settings)

    assert shape.items() <= dict(foreign.read(old, layers=4).shape).items()


def test_a_shape_is_read_from_the_arrays_alone(old: Path) -> None:
    (old / "adapter_config.json").unlink()

    found = foreign.read(old, layers=4)

    assert found.shape == {
        **{"fine_tune_type": "lora", "num_layers": 2, "lora_rank": 4, "lora_keys": ["self_attn.q_proj"]}
    }
    assert any("--lora-scale is taken" in note for note in found.notes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda folder: write_settings(folder, lora_parameters={"rank": 8, "scale": 1}), "says rank 8, and the arrays"),
        (lambda folder: write_settings(folder, fine_tune_type="prefix"), "the fine_tune_type 'prefix'"),
        (
            lambda folder: write_settings(folder, lora_parameters={"rank": 4, "scale": "much"}),
            "lora_scale takes a number",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "adapters.safetensors").write_bytes(b"half"), "cannot be read"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused_with_the_reason(old: Path, wrong: Any, said: str) -> None:
    wrong(old)

    with pytest.raises(BadRequest, match=said) as refused:
        foreign.read(old, layers=4)
    assert refused.value.hint


def test_layers_that_are_not_the_last_are_refused(old: Path) -> None:
    (old / "adapter_config.json").unlink()
    write_adapter(old / "adapters.safetensors", layers=(0, 1))

    with pytest.raises(BadRequest, match="layers 0, 1, which are not the last of the model's 4"):
        foreign.read(old, layers=4)


def test_an_adapter_of_peft_is_named(old: Path) -> None:
    write_settings(old, peft_type="LORA", r=4)

    with pytest.raises(BadRequest, match="holds an adapter of PEFT"):
        foreign.read(old, layers=4)


def test_a_folder_without_an_adapter_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no adapter in"):
        foreign.read(tmp_path, layers=4)


def test_what_was_given_is_told_from_what_is_the_default() -> None:
    config = resolve(LoraConfig, [("recipe.yaml", {"seed": 0}), ("", {"lora_rank": 8})])

    assert given(config) == {"seed", "lora_rank"}
    assert given(LoraConfig(lora_rank=8, seed=3)) == {"seed"}
