"""A model of each architecture, written to GGUF and imported, says what it said before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from gguf_models import CONFIGS, full_config, logits_of, random_model, weights_of, write_gguf

from mlxops.errors import BadRequest
from mlxops.models.gguf.importing import import_gguf
from mlxops.models.loading import load_model

# Longer than the window of gemma3 and than the fast turns of the rotary positions.
IDS = [int(number) for number in numpy.random.default_rng(5).integers(3, 384, 48)]


def loaded(folder: Path) -> Any:
    """The model as anybody loads it."""
    import mlx_lm

    return mlx_lm.load(str(folder))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_an_imported_model_says_what_the_original_says(name: str, tiny_model: Path, tmp_path: Path) -> None:
    config = full_config(name)
    original = random_model(config)
    write_gguf(tmp_path / "tiny.gguf", config, weights_of(original), tiny_model)

    import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="float32")

    expected, said = logits_of(original, IDS), logits_of(loaded(tmp_path / "imported"), IDS)
    assert numpy.abs(expected).max() > 1
    assert numpy.abs(said - expected).max() < 1e-5


def write_changed(name: str, tiny_model: Path, file: Path, **changes: Any) -> Path:
    """A model of that configuration in a file whose settings or tensors were changed."""
    config = full_config(name)
    weights = weights_of(random_model(config))
    return write_gguf(file, config, weights, tiny_model, **changes)


@pytest.mark.slow
def test_a_model_that_ignored_a_setting_would_say_something_else(tiny_model: Path, tmp_path: Path) -> None:
    changed = {
        "llama 3": {"rope_scaling": None},
        "llama 3.2": {"rope_scaling": {"type": "llama3", "rope_type": "llama3", "factor": 8.0}},
        "llama with linear positions": {"rope_scaling": None},
        "llama with yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
        "gemma2": {"attn_logit_softcapping": 50.0},
        "gemma2 of 27B": {"query_pre_attn_scalar": 32},
        "gemma3": {"sliding_window": 64},
        "phi3 with longrope": {"original_max_position_embeddings": 512},
    }

    ignored = [name for name, change in changed.items() if not differs_after(name, change, tiny_model, tmp_path)]
    assert ignored == []


def differs_after(name: str, change: dict[str, Any], tiny_model: Path, tmp_path: Path) -> bool:
    write_changed(name, tiny_model, tmp_path / f"{name}.gguf")
    import_gguf(tmp_path / f"{name}.gguf", tmp_path / name, dtype="float32")
    said = logits_of(load_model(tmp_path / name)[0], IDS)
    config = json.loads((tmp_path / name / "config.json").read_text())
    assert change.keys() <= config.keys()
    (tmp_path / name / "config.json").write_text(json.dumps({**config, **change}))
    return bool(numpy.abs(logits_of(load_model(tmp_path / name)[0], IDS) - said).max() > 1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("llama", {"expert_count": 8}, "a mixture of 8 experts"),
        ("llama", {"attention.scale": 0.5}, r"llama\.attention\.scale is not known"),
        ("llama", {"logit_scale": 0.5}, r"llama\.logit_scale is not known"),
        ("llama", {"attention.causal": False}, r"attention\.causal is False"),
        ("llama", {"attention.value_length": 32}, r"attention\.value_length is 32"),
        ("llama", {"attention.head_count": [4, 2]}, r"head_count is no whole number above 0: \[4, 2\]"),
        ("llama", {"block_count": 0}, "block_count is no whole number above 0: 0"),
        ("llama", {"block_count": 500}, "block_count is 500, with"),
        ("llama", {"block_count": 3}, r"blk\.2\.attn_norm\.weight is missing"),
        ("llama", {"block_count": 1}, r"blk\.1\.attn_k\.weight is not known"),
        ("llama", {"embedding_length": "64"}, "embedding_length is no whole number above 0: '64'"),
        ("qwen2", {"embedding_length": 32}, r"has the shape \(384, 64\) where its settings say \(384, 32\)"),
        ("llama", {"attention.head_count_kv": 3}, "4 heads of 16 numbers with 3 for the keys"),
        ("llama", {"attention.layer_norm_rms_epsilon": 0.0}, "epsilon is no number above 0"),
        ("llama", {"rope.dimension_count": 8}, r"rope\.dimension_count is 8"),
        ("llama", {"vocab_size": 100}, r"vocab_size is 100"),
        ("llama", {"rope.scaling.type": "longrope"}, "of the type 'longrope' is not known"),
        ("llama with yarn", {"rope.scaling.yarn_ext_factor": 0.5}, r"yarn_ext_factor is 0\.5"),
        ("llama with yarn", {"rope.scaling.yarn_log_multiplier": 0.1}, "yarn with a multiplier"),
        ("llama with yarn", {"rope.scaling.attn_factor": 1.5}, r"attn_factor is 1\.5"),
        ("llama 3", {"rope.freq_base": 10000.0}, "factors in rope_freqs.weight"),
        ("llama 3", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "in two ways at once"),
        ("mistral3", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "mistral3 with rope scaling"),
        ("mistral3", {"rope.scaling.factor": 4.0}, "mistral3 with rope scaling"),
        ("mistral3", {"attention.temperature_scale": 0.1}, r"attention\.temperature_scale is 0\.1"),
        ("qwen2", {"attention.key_length": 32, "attention.value_length": 32}, "4 heads of 32 do not make 64"),
        ("gemma2", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "gemma2 with rope scaling"),
        ("gemma3", {"final_logit_softcapping": 30.0}, r"final_logit_softcapping is 30\.0"),
        ("gemma3", {"attention.sliding_window_pattern": 8}, "has 7 layers"),
        ("gemma3", {"attention.sliding_window_pattern": [True, False] * 3}, "do not follow in turn"),
        ("phi3 with longrope", {"rope.scaling.attn_factor": 1.3}, r"attn_factor is 1\.29"),
        ("phi3 with longrope", {"rope.dimension_count": 16}, r"rope_factors_long\.weight has the shape \(6,\)"),
        ("phi3 with longrope", {"attention.sliding_window": 100}, "both a sliding window and factors"),
        ("phi3", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "phi3 with rope scaling"),
    ],
)
def test_what_would_compute_something_else_is_refused_by_name(
    name: str, settings: dict[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_changed(name, tiny_model, tmp_path / "tiny.gguf", settings=settings)

    with pytest.raises(BadRequest, match=message):
        import_gguf(file, tmp_path / "imported", dtype="float32")

    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("llama", "blk.0.ffn_gate_inp.weight", r"blk\.0\.ffn_gate_inp\.weight is not known"),
        ("qwen2", "blk.1.attn_q_norm.weight", r"blk\.1\.attn_q_norm\.weight is not known"),
        ("gemma2", "output.weight", r"output\.weight is not known"),
        ("llama", "blk.0.attn_q.bias", r"blk\.0\.attn_k\.bias is missing"),
        ("qwen3", "rope_freqs.weight", r"rope_freqs\.weight is not known"),
    ],
)
def test_a_tensor_that_the_architecture_has_not_is_refused_by_name(
    name: str, extra: str, message: str, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_changed(name, tiny_model, tmp_path / "tiny.gguf", extra={extra: numpy.zeros(64, numpy.float32)})

    with pytest.raises(BadRequest, match=message):
        import_gguf(file, tmp_path / "imported", dtype="float32")


@pytest.mark.parametrize(
    ("name", "settings", "context"),
    [
        ("llama", {"attention.sliding_window": 100}, 100),
        ("gemma2", {"attention.sliding_window": 64}, 64),
        ("phi3", {"attention.sliding_window": 2047}, 2047),
    ],
)
def test_a_window_that_mlx_lm_has_not_bounds_the_context(
    name: str, settings: dict[str, Any], context: int, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_changed(name, tiny_model, tmp_path / "tiny.gguf", settings=settings)

    imported = import_gguf(file, tmp_path / "imported", dtype="float32")

    assert json.loads((tmp_path / "imported" / "config.json").read_text())["max_position_embeddings"] == context
    assert imported.notes[0].startswith(f"its context is {context:,} tokens here and not 2,048")


def test_settings_that_change_nothing_are_taken(tiny_model: Path, tmp_path: Path) -> None:
    settings = {
        "attention.head_count_kv": [2, 2],
        "expert_count": 0,
        "rope.scaling.finetuned": True,
        "rope.scaling.type": "none",
        "rope.scaling.factor": 4.0,
        "attention.sliding_window": 2048,
    }
    file = write_changed("llama", tiny_model, tmp_path / "tiny.gguf", settings=settings)

    imported = import_gguf(file, tmp_path / "imported", dtype="float32")

    assert imported.notes == ()
    assert "rope_scaling" not in json.loads((tmp_path / "imported" / "config.json").read_text())


def test_a_list_of_the_layers_with_a_window_is_read(tiny_model: Path, tmp_path: Path) -> None:
    pattern = [True, True, False, True, True, False, True]
    file = write_changed(
        "gemma3", tiny_model, tmp_path / "tiny.gguf", settings={"attention.sliding_window_pattern": pattern}
    )

    import_gguf(file, tmp_path / "imported", dtype="float32")

    assert json.loads((tmp_path / "imported" / "config.json").read_text())["sliding_window_pattern"] == 3


def test_long_factors_are_said_to_be_used_at_every_length(tiny_model: Path, tmp_path: Path) -> None:
    file = write_changed("phi3 with longrope", tiny_model, tmp_path / "tiny.gguf")

    imported = import_gguf(file, tmp_path / "imported", dtype="float32")

    assert "with a context of more than 64 tokens" in imported.notes[0]
