"""What mlx-lm's config.json says of a model, from the settings in a GGUF file: one function an architecture.

Each asks for all that its architecture can say. What mlx-lm's model would compute in another way is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlxops.models.gguf import rope
from mlxops.models.gguf.file import GgufFile
from mlxops.models.gguf.keys import Keys, refusal
from mlxops.models.gguf.numbers import unpack

_GELU = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}


@dataclass(kw_only=True)
class Sizes:
    """The settings that all architectures have; an architecture adds its own to `config` and may lower `context`."""

    file: GgufFile
    keys: Keys
    lengths: dict[str, int]
    head: int
    layers: int
    theta: float
    context: int
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


def common(file: GgufFile, name: str) -> Sizes:
    """The settings that every architecture has, and those that none of them may have another value of."""
    keys = Keys(file.metadata, name)
    experts = keys.optional("expert_count")
    if experts not in (None, 0):
        raise refusal(f"it is a mixture of {experts!r} experts")
    keys.expect("expert_used_count", 0)
    hidden, heads, layers = (
        keys.whole("embedding_length"),
        keys.whole("attention.head_count"),
        keys.whole("block_count"),
    )
    if layers > len(file.tensors):
        raise refusal(f"{name}.block_count is {layers}, with {len(file.tensors)} tensors in all")
    key_heads = keys.whole("attention.head_count_kv", heads)
    head = keys.whole("attention.key_length", hidden // heads or None)
    if heads % key_heads or head % 2:
        raise refusal(f"{heads} heads of {head} numbers with {key_heads} for the keys do not fit together")
    vocabulary = _vocabulary(file)
    keys.expect("attention.value_length", head)
    keys.expect("vocab_size", vocabulary)
    keys.expect("attention.causal", True)
    keys.ignore("attention.layer_norm_rms_epsilon", "tensor_data_layout")
    return Sizes(
        file=file,
        keys=keys,
        lengths={
            "hidden": hidden,
            "between": (between := keys.whole("feed_forward_length")),
            "both": 2 * between,
            "vocabulary": vocabulary,
            "heads": heads,
            "key_heads": key_heads,
            "queries": heads * head,
            "keys": key_heads * head,
            "all": (heads + 2 * key_heads) * head,
            "head": head,
        },
        head=head,
        layers=layers,
        theta=keys.number("rope.freq_base", 10000.0),
        context=keys.whole("context_length"),
    )


def _vocabulary(file: GgufFile) -> int:
    """The number of tokens, of which the tokenizer and the embedding say the same."""
    tokens, embedding = file.metadata.get("tokenizer.ggml.tokens"), file.tensors.get("token_embd.weight")
    if not isinstance(tokens, list) or embedding is None:
        raise refusal("it has no tokenizer" if embedding else "token_embd.weight is missing")
    if embedding.shape[0] != len(tokens):
        raise refusal(f"it has {len(tokens)} tokens and an embedding of {embedding.shape[0]}")
    return len(tokens)


def llama(sizes: Sizes) -> None:
    """Llama and Mistral: rotary positions in all ways but longrope."""
    sizes.config["rope_scaling"] = rope.scaling(sizes.keys, sizes.context)
    if "rope_freqs.weight" in sizes.file.tensors:
        if sizes.config["rope_scaling"] is not None:
            raise refusal("it scales rotary positions in two ways at once")
        factors = _factors(sizes, "rope_freqs.weight", sizes.head)
        sizes.config["rope_scaling"] = rope.llama3_scaling(factors, sizes.theta)
    _whole_heads_turn(sizes)
    _keep_within_window(sizes)


def mistral3(sizes: Sizes) -> None:
    """Mistral 3 where it is a llama: nothing that changes with the length of the text."""
    # There llama.cpp takes back how much yarn strengthens the attention, which mlx-lm's llama does not.
    if rope.scaling(sizes.keys, sizes.context) is not None:
        raise refusal("mistral3 with rope scaling is not known")
    sizes.keys.expect("attention.temperature_scale", 0.0)
    llama(sizes)


def qwen2(sizes: Sizes) -> None:
    """Qwen 2 and 2.5: heads that share the hidden size."""
    sizes.config["rope_scaling"] = rope.scaling(sizes.keys, sizes.context)
    _heads_share_hidden(sizes)
    _whole_heads_turn(sizes)
    _keep_within_window(sizes)


def qwen3(sizes: Sizes) -> None:
    """Qwen 3: heads of any size."""
    sizes.config["rope_scaling"] = rope.scaling(sizes.keys, sizes.context)
    _whole_heads_turn(sizes)
    _keep_within_window(sizes)


def gemma2(sizes: Sizes) -> None:
    """Gemma 2: soft caps and a query scale of its own; its windows only bound the context."""
    if rope.scaling(sizes.keys, sizes.context) is not None:
        raise refusal("gemma2 with rope scaling is not known")
    _whole_heads_turn(sizes)
    sizes.keys.expect("rope.freq_base_swa", sizes.theta)
    sizes.keys.ignore("attention.sliding_window_pattern")
    sizes.config.update(_GELU)
    sizes.config["attn_logit_softcapping"] = sizes.keys.number("attn_logit_softcapping", 50.0)
    sizes.config["final_logit_softcapping"] = sizes.keys.number("final_logit_softcapping", 30.0)
    sizes.config["query_pre_attn_scalar"] = _query_scalar(sizes, largest=46)
    _keep_within_window(sizes, default=4096)


def gemma3(sizes: Sizes) -> None:
    """Gemma 3: windows in turn, with rotary positions of their own."""
    keys = sizes.keys
    scaling = rope.scaling(keys, sizes.context)
    if scaling is not None and scaling["type"] != "linear":
        raise refusal(f"gemma3 with rope scaling of the type {scaling['type']!r} is not known")
    _whole_heads_turn(sizes)
    for name in ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"):
        keys.expect(name, sizes.head)
    keys.expect("attn_logit_softcapping", 0.0)
    keys.expect("final_logit_softcapping", 0.0)
    pattern = _window_pattern(sizes)
    if sizes.layers < pattern:
        raise refusal(f"it has {sizes.layers} layers, and mlx-lm wants the {pattern} of a whole turn of windows")
    sizes.config.update(
        _GELU,
        rope_scaling=scaling,
        rope_local_base_freq=keys.number("rope.freq_base_swa", 10000.0),
        query_pre_attn_scalar=_query_scalar(sizes, largest=62),
        sliding_window=keys.whole("attention.sliding_window"),
        sliding_window_pattern=pattern,
    )


def phi3(sizes: Sizes) -> None:
    """Phi 3 and 4: heads rotated in part, and factors for long texts in tensors."""
    keys = sizes.keys
    turned = keys.whole("rope.dimension_count", sizes.head)
    part = turned / sizes.head
    if turned % 2 or turned > sizes.head or int(sizes.head * part) != turned:
        raise refusal(f"{turned} of {sizes.head} numbers of a head cannot be rotated")
    sizes.config["partial_rotary_factor"] = part
    _heads_share_hidden(sizes)
    names = ("rope_factors_long.weight", "rope_factors_short.weight")
    if any(name in sizes.file.tensors for name in names):
        long, short = (_factors(sizes, name, turned) for name in names)
        sizes.config["rope_scaling"], original = rope.longrope(keys, sizes.context, long, short)
        sizes.config["original_max_position_embeddings"] = original
        if (long != short).any():
            sizes.notes.append(
                f"mlx-lm uses the factors for long texts at every length, as llama.cpp does with a context of more "
                f"than {original:,} tokens"
            )
    elif rope.scaling(keys, sizes.context) is not None:
        raise refusal("phi3 with rope scaling in its settings is not known")
    before = sizes.context
    _keep_within_window(sizes)
    if sizes.context != before and "rope_scaling" in sizes.config:
        raise refusal("it has both a sliding window and factors for long texts, and mlx-lm's phi3 has no window")


def _factors(sizes: Sizes, name: str, turned: int) -> Any:
    tensor = sizes.file.tensors.get(name)
    if tensor is None or tensor.shape != (turned // 2,):
        raise refusal(f"{name} is missing" if tensor is None else f"{name} has the shape {tensor.shape}")
    if tensor.packing != "F32":
        raise refusal(f"{name} is packed as {tensor.packing}")
    sizes.used.add(name)
    factors = unpack(tensor.packing, tensor.rows(), name)[0]
    if not (factors > 0).all():
        raise refusal(f"{name} holds a factor that is not above 0")
    return factors


def _whole_heads_turn(sizes: Sizes) -> None:
    sizes.keys.expect("rope.dimension_count", sizes.head)


def _heads_share_hidden(sizes: Sizes) -> None:
    hidden = sizes.lengths["hidden"]
    if sizes.head * sizes.lengths["heads"] != hidden:
        raise refusal(f"{sizes.lengths['heads']} heads of {sizes.head} do not make {hidden}, as mlx-lm's model wants")


def _keep_within_window(sizes: Sizes, default: int | None = None) -> None:
    """Where mlx-lm's model has no sliding window it computes the same for texts that fit into one."""
    window = sizes.keys.optional("attention.sliding_window")
    window = default if window is None else window
    if window in (None, 0) or (type(window) is int and window >= sizes.context):
        return
    if type(window) is not int or window < 1:
        raise refusal(f"its sliding window is {window!r}")
    sizes.notes.append(
        f"its context is {window:,} tokens here and not {sizes.context:,}: beyond, the file wants a sliding window, "
        f"which mlx-lm's model has not"
    )
    sizes.context = window


def _query_scalar(sizes: Sizes, *, largest: int) -> int:
    """What queries are divided by the root of: the size of a head, but the largest Gemma of a generation has another.

    The file does not say; llama.cpp knows that one by its number of layers.
    """
    is_largest = sizes.layers == largest
    return sizes.lengths["hidden"] // sizes.lengths["heads"] if is_largest else sizes.head


def _window_pattern(sizes: Sizes) -> int:
    """Every how many layers one sees the whole text: 6, unless the file says another or has a list of the layers."""
    said = sizes.file.metadata.get("gemma3.attention.sliding_window_pattern")
    sizes.keys.ignore("attention.sliding_window_pattern")
    if isinstance(said, list):
        whole = [layer + 1 for layer, has_window in enumerate(said) if has_window is False]
        pattern = whole[0] if whole else 0
        if not pattern or whole != list(range(pattern, sizes.layers + 1, pattern)) or len(said) != sizes.layers:
            raise refusal("its layers with a sliding window do not follow in turn")
        return pattern
    return 6 if said is None else sizes.keys.whole("attention.sliding_window_pattern")
