"""What a llama in a GGUF file computes, in NumPy and straight from the file: nothing here is shared with the importer.

Numbers are unpacked by the `gguf` package, rotary positions turn neighbouring rows as GGUF orders them, and texts are
cut by llama.cpp's own expression and merged by the rule of byte-level BPE.
"""

from __future__ import annotations

import itertools
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy
import regex
from safetensors.numpy import load_file

# llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM: one after the other.
_SMOLLM = (r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


class Reference:
    """A llama in a GGUF file."""

    def __init__(self, file: Path) -> None:
        reader = gguf.GGUFReader(file)
        self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self._packed = {tensor.name: tensor for tensor in reader.tensors}

    @cached_property
    def tensors(self) -> dict[str, numpy.ndarray]:
        """The weights as float64, which take a while to unpack."""
        unpacked = {name: gguf.dequantize(each.data, each.tensor_type) for name, each in self._packed.items()}
        return {name: each.astype(numpy.float64) for name, each in unpacked.items()}

    def logits(self, ids: list[int]) -> numpy.ndarray:
        """The logits after each token, in float64."""
        meta, tensors = self.metadata, self.tensors
        heads, key_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
        epsilon = meta["llama.attention.layer_norm_rms_epsilon"]
        hidden = tensors["token_embd.weight"][ids]
        length = len(ids)
        future = numpy.triu(numpy.full((length, length), -numpy.inf), 1)
        for layer in range(meta["llama.block_count"]):

            def weight(name: str, layer: int = layer) -> numpy.ndarray:
                return tensors[f"blk.{layer}.{name}.weight"]

            normed = _norm(hidden, weight("attn_norm"), epsilon)
            queries = self._rotated((normed @ weight("attn_q").T).reshape(length, heads, -1))
            keys = self._rotated((normed @ weight("attn_k").T).reshape(length, key_heads, -1))
            values = (normed @ weight("attn_v").T).reshape(length, key_heads, -1)
            keys, values = (part.repeat(heads // key_heads, axis=1) for part in (keys, values))
            scores = numpy.einsum("qhd,khd->hqk", queries, keys) / numpy.sqrt(queries.shape[-1]) + future
            scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            attended = numpy.einsum("hqk,khd->qhd", scores, values).reshape(length, -1)
            hidden = hidden + attended @ weight("attn_output").T
            normed = _norm(hidden, weight("ffn_norm"), epsilon)
            gate = normed @ weight("ffn_gate").T
            hidden = hidden + (gate / (1 + numpy.exp(-gate)) * (normed @ weight("ffn_up").T)) @ weight("ffn_down").T
        output = tensors.get("output.weight", tensors["token_embd.weight"])
        return _norm(hidden, tensors["output_norm.weight"], epsilon) @ output.T

    def _rotated(self, heads: numpy.ndarray) -> numpy.ndarray:
        size = heads.shape[-1]
        speeds = self.metadata["llama.rope.freq_base"] ** (-numpy.arange(0, size, 2) / size)
        angles = numpy.arange(len(heads))[:, None, None] * speeds
        even, odd = heads[..., 0::2], heads[..., 1::2]
        turned = numpy.empty_like(heads)
        turned[..., 0::2] = even * numpy.cos(angles) - odd * numpy.sin(angles)
        turned[..., 1::2] = even * numpy.sin(angles) + odd * numpy.cos(angles)
        return turned

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        ids = {token: number for number, token in enumerate(self.metadata["tokenizer.ggml.tokens"])}
        ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(self.metadata["tokenizer.ggml.merges"])}
        pieces = [text]
        for expression in _SMOLLM:
            pieces = [part for piece in pieces for part in _cut(expression, piece)]
        return [ids[token] for piece in pieces for token in _merged(list(_as_letters(piece)), ranks)]


def _norm(hidden: numpy.ndarray, weight: numpy.ndarray, epsilon: float) -> numpy.ndarray:
    return hidden / numpy.sqrt((hidden**2).mean(axis=-1, keepdims=True) + epsilon) * weight


def _cut(expression: str, text: str) -> list[str]:
    """The matches and what is between them."""
    parts, end = [], 0
    for match in regex.finditer(expression, text):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [part for part in [*parts, text[end:]] if part]


def _as_letters(piece: str) -> str:
    """The bytes of a text as GPT-2 writes them: the printable ones as they are, the others from U+0100 up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
    return "".join(letters[byte] for byte in piece.encode("utf-8"))


def _merged(parts: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """The pair that was learned first is merged first, wherever it stands."""
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        place = pairs.index(best)
        parts[place : place + 2] = ["".join(best)]
    return parts


def write_tiny_gguf(
    model: Path, file: Path, *, packing: str = "F32", changes: dict[str, Any] | None = None, left_out: str | None = None
) -> Path:
    """A tiny llama's folder as a GGUF file, as llama.cpp's converter would write it.

    `changes` replaces metadata that are texts, `left_out` a tensor.
    """
    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    changes = changes or {}
    writer = gguf.GGUFWriter(file, changes.get("general.architecture", "llama"))
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model(changes.get("tokenizer.ggml.model", "gpt2"))
    writer.add_tokenizer_pre(changes.get("tokenizer.ggml.pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    if changes.get("add_bos"):
        writer.add_add_bos_token(True)
    for name, tensor in load_file(model / "model.safetensors").items():
        old = _old_name(name)
        if old == left_out:
            continue
        if old.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config["num_attention_heads" if "attn_q" in old else "num_key_value_heads"]
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        kind = gguf.GGMLQuantizationType[packing if tensor.ndim == 2 else "F32"]
        writer.add_tensor(old, gguf.quantize(numpy.ascontiguousarray(tensor), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _old_name(name: str) -> str:
    for new, old in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ):
        name = name.replace(new, old)
    return name
