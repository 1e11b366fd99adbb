"""The names of tensors in GGUF and in mlx-lm, with their shapes, for each architecture.

What llama.cpp's converter did to the numbers stands here too: rows of q and k in another order, norms with 1 added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A tensor's name in mlx-lm and the names of its dimensions.

    `heads` names the number of heads whose rows are in another order; `shift` is what was added to the numbers.
    """

    name: str
    shape: tuple[str, ...]
    heads: str | None = None
    shift: float = 0.0


LLAMA: Mapping[str, Part] = {
    "attn_norm.weight": Part("input_layernorm.weight", ("hidden",)),
    "attn_q.weight": Part("self_attn.q_proj.weight", ("queries", "hidden"), heads="heads"),
    "attn_k.weight": Part("self_attn.k_proj.weight", ("keys", "hidden"), heads="key_heads"),
    "attn_v.weight": Part("self_attn.v_proj.weight", ("keys", "hidden")),
    "attn_output.weight": Part("self_attn.o_proj.weight", ("hidden", "queries")),
    "ffn_norm.weight": Part("post_attention_layernorm.weight", ("hidden",)),
    "ffn_gate.weight": Part("mlp.gate_proj.weight", ("between", "hidden")),
    "ffn_up.weight": Part("mlp.up_proj.weight", ("between", "hidden")),
    "ffn_down.weight": Part("mlp.down_proj.weight", ("hidden", "between")),
}

ATTENTION_BIASES: Mapping[str, Part] = {
    "attn_q.bias": Part("self_attn.q_proj.bias", ("queries",), heads="heads"),
    "attn_k.bias": Part("self_attn.k_proj.bias", ("keys",), heads="key_heads"),
    "attn_v.bias": Part("self_attn.v_proj.bias", ("keys",)),
    "attn_output.bias": Part("self_attn.o_proj.bias", ("hidden",)),
}

MLP_BIASES: Mapping[str, Part] = {
    "ffn_gate.bias": Part("mlp.gate_proj.bias", ("between",)),
    "ffn_up.bias": Part("mlp.up_proj.bias", ("between",)),
    "ffn_down.bias": Part("mlp.down_proj.bias", ("hidden",)),
}

# Only llama's rows are in another order: the others are rotated as mlx-lm does it.
_PLAIN_BLOCK: Mapping[str, Part] = {old: Part(part.name, part.shape) for old, part in LLAMA.items()}

QWEN2: Mapping[str, Part] = {
    **_PLAIN_BLOCK,
    "attn_q.bias": Part("self_attn.q_proj.bias", ("queries",)),
    "attn_k.bias": Part("self_attn.k_proj.bias", ("keys",)),
    "attn_v.bias": Part("self_attn.v_proj.bias", ("keys",)),
}

QWEN3: Mapping[str, Part] = {
    **_PLAIN_BLOCK,
    "attn_q_norm.weight": Part("self_attn.q_norm.weight", ("head",)),
    "attn_k_norm.weight": Part("self_attn.k_norm.weight", ("head",)),
}

GEMMA2: Mapping[str, Part] = {
    **_PLAIN_BLOCK,
    "attn_norm.weight": Part("input_layernorm.weight", ("hidden",), shift=1.0),
    "post_attention_norm.weight": Part("post_attention_layernorm.weight", ("hidden",), shift=1.0),
    "ffn_norm.weight": Part("pre_feedforward_layernorm.weight", ("hidden",), shift=1.0),
    "post_ffw_norm.weight": Part("post_feedforward_layernorm.weight", ("hidden",), shift=1.0),
}

GEMMA3: Mapping[str, Part] = {
    **GEMMA2,
    "attn_q_norm.weight": Part("self_attn.q_norm.weight", ("head",), shift=1.0),
    "attn_k_norm.weight": Part("self_attn.k_norm.weight", ("head",), shift=1.0),
}

PHI3: Mapping[str, Part] = {
    "attn_norm.weight": Part("input_layernorm.weight", ("hidden",)),
    "attn_qkv.weight": Part("self_attn.qkv_proj.weight", ("all", "hidden")),
    "attn_output.weight": Part("self_attn.o_proj.weight", ("hidden", "queries")),
    "ffn_norm.weight": Part("post_attention_layernorm.weight", ("hidden",)),
    "ffn_up.weight": Part("mlp.gate_up_proj.weight", ("both", "hidden")),
    "ffn_down.weight": Part("mlp.down_proj.weight", ("hidden", "between")),
}
