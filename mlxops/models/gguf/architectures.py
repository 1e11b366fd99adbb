"""The architectures that can be imported, and how the model in a file of one of them is written for mlx-lm.

An architecture is one entry of the table at the end; its names and its settings have modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlxops import words
from mlxops.errors import BadRequest
from mlxops.models.gguf import model_settings, names
from mlxops.models.gguf.file import GgufFile
from mlxops.models.gguf.keys import refusal
from mlxops.models.gguf.model_settings import Sizes
from mlxops.models.gguf.names import Part


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a tensor goes: its name there, how many heads have their rows interleaved, and what to take off."""

    name: str
    shape: tuple[int, ...]
    interleaved_heads: int | None
    shift: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be imported: its config.json, its tensors by their GGUF names, and what a person should know."""

    config: dict[str, Any]
    layouts: Mapping[str, Layout]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """One architecture; `together` are tensors that all layers have or none, with the setting that says so."""

    model_type: str
    class_name: str
    block: Mapping[str, Part]
    settings: Callable[[Sizes], None]
    together: Mapping[str, Mapping[str, Part]] = field(default_factory=dict)
    own_output: bool = True
    shift: float = 0.0


def describe(file: GgufFile) -> Model:
    """How the model in a file is written for mlx-lm. Raises `BadRequest` for what would not compute the same."""
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise refusal(f"it holds no model but a {kind!r}")
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise BadRequest(
            f"GGUF files of the architecture {name!r} cannot be imported",
            hint=f"those of {', '.join(_ARCHITECTURES)} can; `inv download-model` gets others from the hub",
        )
    architecture = _ARCHITECTURES[name]
    sizes = model_settings.common(file, name)
    architecture.settings(sizes)
    sizes.keys.refuse_others()
    parts = _parts(sizes, architecture)
    layouts = {old: _layout(part, sizes.lengths) for old, part in parts.items()}
    _check_tensors(file, layouts, sizes.used)
    config = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "hidden_size": sizes.lengths["hidden"],
        "intermediate_size": sizes.lengths["between"],
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.lengths["heads"],
        "num_key_value_heads": sizes.lengths["key_heads"],
        "head_dim": sizes.head,
        "vocab_size": sizes.lengths["vocabulary"],
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": sizes.keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": sizes.theta,
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **{setting: value for setting, value in sizes.config.items() if value is not None},
    }
    return Model(config=config, layouts=layouts, notes=tuple(sizes.notes))


def _parts(sizes: Sizes, architecture: _Architecture) -> dict[str, Part]:
    """All tensors that the model has to have, under their names in the file and in mlx-lm's order."""
    there = sizes.file.tensors
    shift = architecture.shift
    parts = {"token_embd.weight": Part("model.embed_tokens.weight", ("vocabulary", "hidden"))}
    in_block = dict(architecture.block)
    for setting, together in architecture.together.items():
        if any(f"blk.{layer}.{old}" in there for layer in range(sizes.layers) for old in together):
            in_block.update(together)
            sizes.config[setting] = True
    for layer in range(sizes.layers):
        for old, part in in_block.items():
            new = Part(f"model.layers.{layer}.{part.name}", part.shape, part.heads, part.shift)
            parts[f"blk.{layer}.{old}"] = new
    parts["output_norm.weight"] = Part("model.norm.weight", ("hidden",), shift=shift)
    if architecture.own_output and "output.weight" in there:
        parts["output.weight"] = Part("lm_head.weight", ("vocabulary", "hidden"))
    return parts


def _layout(part: Part, lengths: Mapping[str, int]) -> Layout:
    return Layout(
        name=part.name,
        shape=tuple(lengths[name] for name in part.shape),
        interleaved_heads=lengths[part.heads] if part.heads else None,
        shift=part.shift,
    )


def _check_tensors(file: GgufFile, layouts: Mapping[str, Layout], used: set[str]) -> None:
    """All tensors are there, in their shapes, and no other."""
    problems = [f"{name} is missing" for name in layouts if name not in file.tensors]
    problems += [f"{name} is not known" for name in sorted(file.tensors.keys() - layouts.keys() - used)]
    problems += [
        f"{name} has the shape {file.tensors[name].shape} where its settings say {layout.shape}"
        for name, layout in layouts.items()
        if name in file.tensors and file.tensors[name].shape != layout.shape
    ]
    if problems:
        raise refusal(words.listed(problems, 3))


_LLAMA = _Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    block=names.LLAMA,
    together={"attention_bias": names.ATTENTION_BIASES, "mlp_bias": names.MLP_BIASES},
    settings=model_settings.llama,
)

_ARCHITECTURES: Mapping[str, _Architecture] = {
    "llama": _LLAMA,
    "mistral3": replace(_LLAMA, settings=model_settings.mistral3),
    "qwen2": _Architecture(
        model_type="qwen2", class_name="Qwen2ForCausalLM", block=names.QWEN2, settings=model_settings.qwen2
    ),
    "qwen3": _Architecture(
        model_type="qwen3", class_name="Qwen3ForCausalLM", block=names.QWEN3, settings=model_settings.qwen3
    ),
    "gemma2": _Architecture(
        model_type="gemma2",
        class_name="Gemma2ForCausalLM",
        block=names.GEMMA2,
        settings=model_settings.gemma2,
        own_output=False,
        shift=1.0,
    ),
    "gemma3": _Architecture(
        model_type="gemma3_text",
        class_name="Gemma3ForCausalLM",
        block=names.GEMMA3,
        settings=model_settings.gemma3,
        shift=1.0,
    ),
    "phi3": _Architecture(
        model_type="phi3", class_name="Phi3ForCausalLM", block=names.PHI3, settings=model_settings.phi3
    ),
}
