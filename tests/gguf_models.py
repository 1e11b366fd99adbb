"""Tiny random models of each architecture, and GGUF files of them as llama.cpp's converter writes those.

The models are mlx-lm's own classes with its names for everything. What the converter does to a model is done here from
its description and shares nothing with the importer: names come from the `gguf` package's own table.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy

# The architecture's name in GGUF where it is not that of mlx-lm's module.
_GGUF_NAMES = {"gemma3_text": "gemma3"}

_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 384,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONG = {"max_position_embeddings": 131072}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 8.0}
_LINEAR = {"rope_type": "linear", "factor": 3.0}
_LONGROPE = {
    "type": "longrope",
    "long_factor": [1.0, 1.5, 2.25, 4.0, 8.5, 16.0],
    "short_factor": [1.0, 1.0, 1.25, 1.5, 2.0, 2.5],
}
_GEMMA = {"head_dim": 32, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with its embedding as output": {"model_type": "llama", "tie_word_embeddings": True},
    "llama with large heads": {"model_type": "llama", "head_dim": 24, "rope_theta": 500000.0},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama 3": {"model_type": "llama", "head_dim": 32, "rope_theta": 500000.0, "rope_scaling": _LLAMA3, **_LONG},
    "llama 3.2": {
        "model_type": "llama",
        "head_dim": 32,
        "rope_theta": 500000.0,
        "rope_scaling": {**_LLAMA3, "factor": 32.0},
        **_LONG,
    },
    "llama with linear positions": {"model_type": "llama", "rope_scaling": _LINEAR},
    "llama with yarn": {"model_type": "llama", "rope_scaling": _YARN},
    "mistral3": {"model_type": "llama", "head_dim": 32, "architecture": "mistral3"},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1000000.0},
    "qwen2 with yarn": {"model_type": "qwen2", "rope_scaling": _YARN, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    "qwen3 with linear positions": {"model_type": "qwen3", "head_dim": 32, "rope_scaling": _LINEAR},
    "gemma2": {
        "model_type": "gemma2",
        **_GEMMA,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 32,
        "sliding_window": 4096,
    },
    "gemma2 of 27B": {
        "model_type": "gemma2",
        **_GEMMA,
        "num_hidden_layers": 46,
        "hidden_size": 32,
        "intermediate_size": 32,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 8,
        "sliding_window": 4096,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        **_GEMMA,
        "num_hidden_layers": 7,
        "sliding_window": 8,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 32,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "phi3": {"model_type": "phi3", "original_max_position_embeddings": 2048},
    "phi3 with longrope": {
        "model_type": "phi3",
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 64,
        "rope_scaling": _LONGROPE,
        "tie_word_embeddings": True,
    },
}


def full_config(name: str) -> dict[str, Any]:
    """The configuration of one of the models above, as mlx-lm takes it."""
    return {**_COMMON, **CONFIGS[name]}


def random_model(config: dict[str, Any], seed: int = 0) -> Any:
    """mlx-lm's model with random numbers in every part, norms and biases too."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(config))
    if config["model_type"] == "gemma3_text":
        model.sanitize({})
    generator = numpy.random.default_rng(seed)
    is_gemma = config["model_type"].startswith("gemma")
    numbers = {}
    for name, array in tree_flatten(model.parameters()):
        noise = generator.standard_normal(array.shape, dtype=numpy.float32)
        if "norm" in name:
            noise = noise / 4 + (0 if is_gemma else 1)
        else:
            noise = noise / 2 if name.endswith("bias") else noise / math.sqrt(array.shape[-1])
        numbers[name] = noise.astype(numpy.float32)
    model.load_weights([(name, mx.array(array)) for name, array in numbers.items()])
    model.eval()
    return model


def weights_of(model: Any) -> dict[str, numpy.ndarray]:
    """A model's numbers by their names."""
    from mlx.utils import tree_flatten

    return {name: numpy.array(array) for name, array in tree_flatten(model.parameters())}


def logits_of(model: Any, ids: list[int]) -> numpy.ndarray:
    """What a model says after each token, in float32."""
    import mlx.core as mx

    return numpy.array(model(mx.array([ids]))[0].astype(mx.float32))


def write_gguf(
    file: Path,
    config: dict[str, Any],
    weights: dict[str, numpy.ndarray],
    tokenizer: Path,
    *,
    packing: Callable[[str, numpy.ndarray], tuple[numpy.ndarray, str]] | None = None,
    settings: dict[str, Any] | None = None,
    extra: dict[str, numpy.ndarray] | None = None,
    split_tensors: int = 0,
) -> Path:
    """A model as GGUF; `tokenizer` is the folder of a tiny one. Returns the file, of several the first.

    `packing` packs a matrix by its name in GGUF; `settings` adds or replaces settings of the architecture, `extra` adds
    tensors; with `split_tensors` there are several files with at most so many tensors.
    """
    architecture = config.get("architecture") or _GGUF_NAMES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(file, architecture, split_max_tensors=split_tensors)
    _write_settings(writer, architecture, config)
    for key, value in (settings or {}).items():
        _replace(writer, f"{architecture}.{key}", value)
    _write_tokenizer(writer, tokenizer, "qwen2" if architecture == "qwen2" else "smollm")
    for name, tensor in (_converted(architecture, config, weights) | (extra or {})).items():
        packed, kind = tensor, "F32"
        if packing is not None and tensor.ndim == 2:
            packed, kind = packing(name, tensor)
        writer.add_tensor(name, numpy.ascontiguousarray(packed), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return next(iter(sorted(file.parent.glob(f"{file.stem}-*.gguf"))), file) if split_tensors else file


def _replace(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    writer.kv_data[0].pop(key, None)
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kinds[type(value)](key, value)


def _write_settings(writer: gguf.GGUFWriter, architecture: str, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if architecture != "gemma2":
        writer.add_rope_freq_base(config["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if architecture in ("llama", "mistral3"):
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(_head(config))
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_rope_dimension_count(int(_head(config) * config.get("partial_rotary_factor", 1.0)))
        writer.add_sliding_window(config.get("sliding_window", 0))
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(scaling["beta_fast"])
    if kind == "longrope":
        original = config["original_max_position_embeddings"]
        growth = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(growth) / math.log(original)))


def _write_tokenizer(writer: gguf.GGUFWriter, folder: Path, pre: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _converted(
    architecture: str, config: dict[str, Any], weights: dict[str, numpy.ndarray]
) -> dict[str, numpy.ndarray]:
    """The tensors under their GGUF names, with what the converter does to their numbers."""
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    converted = {}
    for name, tensor in weights.items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + numpy.float32(1)
        if architecture in ("llama", "mistral3") and ".q_proj." in name:
            tensor = _interleaved(tensor, config["num_attention_heads"])
        if architecture in ("llama", "mistral3") and ".k_proj." in name:
            tensor = _interleaved(tensor, config["num_key_value_heads"])
        converted[new] = tensor
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        converted["rope_freqs.weight"] = _llama3_factors(scaling, config["rope_theta"], _head(config))
    if scaling.get("type") == "longrope":
        converted["rope_factors_long.weight"] = numpy.array(scaling["long_factor"], numpy.float32)
        converted["rope_factors_short.weight"] = numpy.array(scaling["short_factor"], numpy.float32)
    return converted


def _head(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _interleaved(tensor: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Row n of a head's first half, then row n of its second half, and so on."""
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return numpy.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(tensor.shape)


def _llama3_factors(scaling: dict[str, Any], theta: float, head: int) -> numpy.ndarray:
    low, high, length = (scaling[f"{name}"] for name in ("low_freq_factor", "high_freq_factor", _ORIGINAL))
    factors = []
    for place in range(0, head, 2):
        wave = 2 * math.pi * theta ** (place / head)
        if wave < length / high:
            factors.append(1.0)
        elif wave > length / low:
            factors.append(scaling["factor"])
        else:
            smooth = (length / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return numpy.array(factors, numpy.float32)


_ORIGINAL = "original_max_position_embeddings"
