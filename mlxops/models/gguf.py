"""GGUF files into model folders.

What differs between architectures, packings and tokenizers stands in tables: what is in none of them is refused by
name. The numbers are read by MLX, which keeps 4 and 8 bits packed; the header and the metadata by the `gguf` package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxops.errors import BadRequest, NotFound
from mlxops.models import gguf_tokenizer
from mlxops.models.folders import ModelInfo, check_model
from mlxops.models.model_files import new_folder, write_json, write_tokenizer

if TYPE_CHECKING:
    import mlx.core as mx
    from gguf import GGUFReader

Dtype = Literal["float32", "float16", "bfloat16", "keep"]

# The packings that MLX reads as they are, and the bits of each.
_PACKED = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}
_PLAIN = ("F32", "F16")
_GROUP = 32


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """How one architecture's names in GGUF become those of mlx-lm.

    `permuted` names the tensors of a block whose rows GGUF has in another order, with the key of their head count.
    """

    model_type: str
    class_name: str
    outside: Mapping[str, str]
    in_block: Mapping[str, str]
    permuted: Mapping[str, str]


_ARCHITECTURES = {
    "llama": _Architecture(
        model_type="llama",
        class_name="LlamaForCausalLM",
        outside={"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
        in_block={
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        permuted={"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"},
    ),
}

# Without it the embedding serves as the output as well.
_OPTIONAL = {"output"}


def import_gguf(
    source: Path, target: Path, *, dtype: Dtype, progress: Callable[[int, int], None] | None = None
) -> ModelInfo:
    """Make a model folder of a GGUF file; `target` is there whole afterwards, or not at all.

    `keep` leaves packed numbers packed; any other dtype unpacks them. `progress` is told the tensors done and their
    number. Raises `BadRequest` for what cannot be read, naming it, and `Refused` if `target` is there already.
    """
    with new_folder(target) as filling:
        metadata, packings = _read_header(source)
        architecture = _architecture(metadata)
        names = _new_names(packings, architecture, _number(metadata, "block_count"))
        tokenizer = gguf_tokenizer.rebuild(metadata)
        tensors = dict(_tensors(source, names, metadata, architecture, packings, dtype, progress))
        config = _config(metadata, architecture, packings, names, dtype)
        write_json(filling / "config.json", {**config, **tokenizer.ids})
        write_tokenizer(
            filling,
            tokenizer.tokenizer,
            special_tokens=tokenizer.special_tokens,
            chat_template=tokenizer.chat_template,
            context_length=config["max_position_embeddings"],
        )
        _save(filling / "model.safetensors", tensors)
        return check_model(filling)


def _read_header(source: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata, and the packing of each tensor by its name; the file is as long as it says."""
    if not source.is_file():
        raise NotFound(f"no file {str(source)!r}", hint="name a file that ends in .gguf")
    with source.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise BadRequest(f"{str(source)!r} is not a GGUF file", hint="name a file that ends in .gguf")
    from gguf import GGUFReader

    try:
        reader: GGUFReader = GGUFReader(source)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise BadRequest(
            f"{str(source)!r} is damaged or of a version that is not known: {error}", hint="get the file again"
        ) from error
    return metadata, {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}


def _architecture(metadata: Mapping[str, Any]) -> _Architecture:
    name = metadata.get("general.architecture")
    if name not in _ARCHITECTURES:
        raise BadRequest(
            f"GGUF files of the architecture {name!r} cannot be imported yet",
            hint=f"those of {', '.join(_ARCHITECTURES)} can; hf download gets others from the hub",
        )
    scaling = metadata.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none":
        raise BadRequest(f"GGUF files with rope scaling {scaling!r} cannot be imported yet", hint="get it from the hub")
    return _ARCHITECTURES[name]


def _number(metadata: Mapping[str, Any], key: str, default: float | None = None) -> Any:
    full_key = f"{metadata['general.architecture']}.{key}"
    value = metadata.get(full_key, default)
    if not isinstance(value, (int, float)):
        raise BadRequest(f"the GGUF file has no single number {full_key!r}", hint="get the file again")
    return value


def _new_names(packings: Mapping[str, str], architecture: _Architecture, layers: int) -> dict[str, str]:
    """Each tensor's name without `.weight`, in GGUF and in mlx-lm; all that must be there are, and no other."""
    names = dict(architecture.outside)
    for layer in range(layers):
        names.update(
            {f"blk.{layer}.{old}": f"model.layers.{layer}.{new}" for old, new in architecture.in_block.items()}
        )
    there = {name.removesuffix(".weight") for name in packings}
    problems = [f"{name} is missing" for name in names if name not in there and name not in _OPTIONAL]
    problems += [f"{name} is not known" for name in sorted(there - set(names))]
    problems += [
        f"{name} is packed as {packing}" for name, packing in packings.items() if packing not in (*_PACKED, *_PLAIN)
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadRequest(
            f"this GGUF file cannot be imported yet: {', '.join(problems[:3])}{more}",
            hint=f"{', '.join([*_PACKED, *_PLAIN])} can be read; get another file, or the model from the hub",
        )
    return {old: new for old, new in names.items() if old in there}


def _tensors(
    source: Path,
    names: Mapping[str, str],
    metadata: Mapping[str, Any],
    architecture: _Architecture,
    packings: Mapping[str, str],
    dtype: Dtype,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, mx.array]]:
    """The tensors under their new names, in their new order and dtype."""
    import mlx.core as mx

    loaded: Any = mx.load(str(source), format="gguf")
    for done, (old, new) in enumerate(names.items(), start=1):
        parts = {
            kind: loaded.pop(f"{old}.{kind}") for kind in ("weight", "scales", "biases") if f"{old}.{kind}" in loaded
        }
        heads_key = architecture.permuted.get(re.sub(r"^blk\.\d+\.", "", old))
        if heads_key is not None:
            heads = _number(metadata, heads_key, _number(metadata, "attention.head_count"))
            parts = {kind: _rows_in_order(part, heads) for kind, part in parts.items()}
        if dtype != "keep":
            parts = {"weight": _unpacked(parts, _PACKED.get(packings[f"{old}.weight"])).astype(getattr(mx, dtype))}
        elif any(packing != "F32" for packing in packings.values()):
            # Norms are in float32 beside packed matrices whose scales are in float16: one dtype for all.
            parts = {kind: part if part.dtype == mx.uint32 else part.astype(mx.float16) for kind, part in parts.items()}
        mx.eval(parts)
        yield from ((f"{new}.{kind}", part) for kind, part in parts.items())
        if progress is not None:
            progress(done, len(names))


def _rows_in_order(part: mx.array, heads: int) -> mx.array:
    """Undo GGUF's order of the rows of q and k: it interleaves the halves of a head that are rotated together."""
    rows, *rest = part.shape
    return part.reshape(heads, rows // heads // 2, 2, *rest).swapaxes(1, 2).reshape(part.shape)


def _unpacked(parts: Mapping[str, mx.array], bits: int | None) -> mx.array:
    import mlx.core as mx

    if bits is None:
        return parts["weight"]
    # In float32: the product of a scale in float16 with a whole number would be rounded to float16.
    scales, biases = (parts[kind].astype(mx.float32) for kind in ("scales", "biases"))
    return mx.dequantize(parts["weight"], scales, biases, group_size=_GROUP, bits=bits)


def _config(
    metadata: Mapping[str, Any],
    architecture: _Architecture,
    packings: Mapping[str, str],
    names: Mapping[str, str],
    dtype: Dtype,
) -> dict[str, Any]:
    heads, hidden = _number(metadata, "attention.head_count"), _number(metadata, "embedding_length")
    head_size = _number(metadata, "attention.key_length", hidden // heads)
    if _number(metadata, "rope.dimension_count", head_size) != head_size:
        raise BadRequest("GGUF files that rotate a part of a head cannot be imported yet", hint="get it from the hub")
    config: dict[str, Any] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "hidden_size": hidden,
        "intermediate_size": _number(metadata, "feed_forward_length"),
        "num_hidden_layers": _number(metadata, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _number(metadata, "attention.head_count_kv", heads),
        "head_dim": head_size,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": _number(metadata, "context_length"),
        "rms_norm_eps": _short(_number(metadata, "attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(_number(metadata, "rope.freq_base", 10000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output" not in names,
        "torch_dtype": dtype,
    }
    if dtype == "keep":
        packed = {
            new: _PACKED[packings[f"{old}.weight"]]
            for old, new in names.items()
            if packings[f"{old}.weight"] in _PACKED
        }
        config["torch_dtype"] = "float32" if set(packings.values()) == {"F32"} else "float16"
        if packed:
            config["quantization"] = _quantization(packed)
    return config


def _quantization(bits: Mapping[str, int]) -> dict[str, Any]:
    """The packing of most matrices, and by name that of the others."""
    most = max(set(bits.values()), key=list(bits.values()).count)
    others = {name: {"group_size": _GROUP, "bits": own} for name, own in bits.items() if own != most}
    return {"group_size": _GROUP, "bits": most, **others}


def _short(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05, where Python would say 9.999999747378752e-06."""
    import numpy

    return float(str(numpy.float32(value)))


def _save(file: Path, tensors: Mapping[str, mx.array]) -> None:
    import mlx.core as mx

    mx.save_safetensors(str(file), dict(tensors), metadata={"format": "mlx"})
