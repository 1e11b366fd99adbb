"""Adapters in and out of one loaded model: bit for bit as a fresh load by mlx-lm, for every kind there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import utils
from small_adapters import KINDS, make_adapter, spec

from mlxops.errors import BadRequest
from mlxops.models.adapter_slot import AdapterSlot

TOKENS = mx.array([[1, 5, 9, 3, 7, 2, 8, 4]])


def logits(model: Any) -> mx.array:
    """What a model makes of a few tokens."""
    result = model(TOKENS)
    mx.eval(result)
    return result


def fresh(model_folder: Path, adapter: Path | None = None) -> mx.array:
    """What a model says that mlx-lm has just loaded, with an adapter or without one."""
    model, _ = utils.load(str(model_folder), adapter_path=str(adapter) if adapter else None)
    model.eval()
    return logits(model)


def loaded(model_folder: Path) -> Any:
    model, _ = utils.load_model(model_folder)
    model.eval()
    return model


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One adapter of each kind for the tiny model."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(tiny_model, folder / name.replace(" ", "-"), *kind) for name, kind in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_answers_as_freshly_loaded_and_goes_without_a_trace(
    tiny_model: Path, adapters: dict[str, Path], kind: str
) -> None:
    model = loaded(tiny_model)
    slot = AdapterSlot(model)

    slot.put_in(spec(adapters[kind]))
    with_adapter = logits(model)
    slot.take_out()

    assert mx.array_equal(with_adapter, fresh(tiny_model, adapters[kind]))
    assert not mx.array_equal(with_adapter, fresh(tiny_model))
    assert mx.array_equal(logits(model), fresh(tiny_model))


def test_adapters_of_all_kinds_follow_one_another(tiny_model: Path, adapters: dict[str, Path]) -> None:
    model = loaded(tiny_model)
    slot = AdapterSlot(model)
    said = {}

    for kind in [*KINDS, *reversed(KINDS)]:
        slot.put_in(spec(adapters[kind]))
        said.setdefault(kind, []).append(logits(model))

    wanted = {kind: fresh(tiny_model, adapters[kind]) for kind in KINDS}
    assert [kind for kind in KINDS if not all(mx.array_equal(one, wanted[kind]) for one in said[kind])] == []


def test_a_quantized_model_takes_an_adapter(tiny_quantized_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_quantized_model, tmp_path / "a", "lora", 2, 8, None)
    model = loaded(tiny_quantized_model)
    slot = AdapterSlot(model)

    slot.put_in(spec(adapter))
    with_adapter = logits(model)
    slot.take_out()

    assert mx.array_equal(with_adapter, fresh(tiny_quantized_model, adapter))
    assert mx.array_equal(logits(model), fresh(tiny_quantized_model))


@pytest.mark.parametrize("keys", [None, ["mlp.switch_mlp.up_proj", "self_attn.v_proj"]], ids=["all", "some"])
def test_experts_take_an_adapter(tiny_experts: Path, tmp_path: Path, keys: list[str] | None) -> None:
    adapter = make_adapter(tiny_experts, tmp_path / "a", "lora", 2, 4, keys)
    model = loaded(tiny_experts)
    slot = AdapterSlot(model)

    slot.put_in(spec(adapter))
    with_adapter = logits(model)
    slot.take_out()

    assert mx.array_equal(with_adapter, fresh(tiny_experts, adapter))
    assert not mx.array_equal(with_adapter, fresh(tiny_experts))
    assert mx.array_equal(logits(model), fresh(tiny_experts))


# What does not fit


def change_tensors(adapter: Path, target: Path, change: Any) -> Path:
    """A copy of an adapter with other tensors."""
    shutil.copytree(adapter, target)
    tensors = dict(mx.load(str(target / "adapters.safetensors")))
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(target / "adapters.safetensors"), tensors)
    return target


def unknown(tensors: dict[str, mx.array]) -> None:
    tensors["model.layers.9.self_attn.q_proj.lora_a"] = mx.zeros((64, 8))


def misshaped(tensors: dict[str, mx.array]) -> None:
    name = next(iter(sorted(tensors)))
    tensors[name] = mx.zeros((3, 5))


def missing(tensors: dict[str, mx.array]) -> None:
    del tensors[sorted(tensors)[0]]


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unknown, "1 tensor the model has no place for (model.layers.9.self_attn.q_proj.lora_a)"),
        (misshaped, "(3, 5) instead of ("),
        (missing, "1 tensor missing (model.layers."),
    ],
)
def test_tensors_are_checked_both_ways_and_the_model_stays_as_it_was(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path, kind: str, change: Any, words: str
) -> None:
    bad = change_tensors(adapters[kind], tmp_path / "bad", change)
    model = loaded(tiny_model)
    slot = AdapterSlot(model)

    with pytest.raises(BadRequest) as raised:
        slot.put_in(spec(bad))

    assert "the adapter of run 'bad' does not fit the model: " in raised.value.message
    assert words in raised.value.message
    assert slot.adapter is None
    assert mx.array_equal(logits(model), fresh(tiny_model))


def test_many_missing_tensors_are_counted(tiny_model: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    empty = change_tensors(adapters["lora"], tmp_path / "empty", dict.clear)

    with pytest.raises(BadRequest, match=r"28 tensors missing \(.*, .*, .* and 25 more\)"):
        AdapterSlot(loaded(tiny_model)).put_in(spec(empty))


def test_an_adapter_of_another_model_is_refused_and_the_run_is_named(
    tiny_model: Path, adapters: dict[str, Path]
) -> None:
    model = loaded(tiny_model)
    slot = AdapterSlot(model, identify=lambda: "a" * 64, name="tiny")
    of_another = spec(adapters["lora"], model="models/other", model_identity="b" * 64)

    with pytest.raises(BadRequest) as raised:
        slot.put_in(of_another)

    assert raised.value.message == (
        "the adapter of run 'lora' was trained on another model, 'models/other': "
        "the identity of tiny is aaaaaaaaaaaa, and bbbbbbbbbbbb was recorded"
    )
    assert mx.array_equal(logits(model), fresh(tiny_model))


def test_keys_that_cannot_be_adapted_are_refused_and_leave_the_model_as_it_was(
    tiny_model: Path, adapters: dict[str, Path]
) -> None:
    model = loaded(tiny_model)

    with pytest.raises(BadRequest, match="does not fit"):
        AdapterSlot(model).put_in(spec(adapters["lora"], keys=["self_attn.q_proj", "input_layernorm"]))

    assert mx.array_equal(logits(model), fresh(tiny_model))


def test_a_file_that_is_no_adapter_is_refused(tiny_model: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "adapters.safetensors"
    file.write_bytes(b"\x08\0\0\0\0\0\0\0nothing")

    with pytest.raises(BadRequest, match="the adapter of run 'lora' cannot be read"):
        AdapterSlot(loaded(tiny_model)).put_in(spec(adapters["lora"], weights=file))


def test_the_owner_of_a_cache_changes_with_the_adapter(tiny_model: Path, adapters: dict[str, Path]) -> None:
    slot = AdapterSlot(loaded(tiny_model))
    owners = [slot.owner]

    for kind in ("lora", "dora"):
        slot.put_in(spec(adapters[kind]))
        owners.append(slot.owner)
    slot.take_out()

    assert len(set(owners)) == 3
    assert slot.owner == owners[0]
