"""The tiny llama in NumPy and float64: a computation that shares no code with MLX, mlx-lm or the training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def row_losses(weights: Weights, tokens: np.ndarray, mask: np.ndarray, *, scale: float, heads: int = 4) -> np.ndarray:
    """The cross-entropy of the trained tokens, summed over each row; `scale` is that of the LoRA adapters."""
    found = logits(weights, tokens[:, :-1], scale=scale, heads=heads)
    highest = found.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(found - highest).sum(axis=-1)) + highest[..., 0]
    chosen = np.take_along_axis(found, tokens[:, 1:, None], axis=-1)[..., 0]
    return ((normalizer - chosen) * mask).sum(axis=1)


def logits(weights: Weights, tokens: np.ndarray, *, scale: float, heads: int = 4) -> np.ndarray:
    """The logits after each token, of shape (rows, length, vocabulary)."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    hidden = weights["model.embed_tokens.weight"][tokens]
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    for layer in range(layers):
        name = f"model.layers.{layer}"

        def linear(x: np.ndarray, part: str, name: str = name) -> np.ndarray:
            return _linear(weights, f"{name}.{part}", x, scale)

        normal = _normal(hidden, weights[f"{name}.input_layernorm.weight"])
        queries, keys, values = (linear(normal, f"self_attn.{part}_proj") for part in "qkv")
        hidden = hidden + linear(_attend(queries, keys, values, heads), "self_attn.o_proj")
        normal = _normal(hidden, weights[f"{name}.post_attention_layernorm.weight"])
        gate, up = linear(normal, "mlp.gate_proj"), linear(normal, "mlp.up_proj")
        hidden = hidden + linear(gate / (1 + np.exp(-gate)) * up, "mlp.down_proj")
    return _normal(hidden, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


def _linear(weights: Weights, name: str, x: np.ndarray, scale: float) -> np.ndarray:
    if f"{name}.lora_a" in weights:
        adapted = x @ weights[f"{name}.lora_a"] @ weights[f"{name}.lora_b"]
        return x @ weights[f"{name}.linear.weight"].T + scale * adapted
    return x @ weights[f"{name}.weight"].T


def _normal(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-5) * weight


def _attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, heads: int) -> np.ndarray:
    rows, length, width = queries.shape
    size = width // heads
    queries, keys, values = (each.reshape(rows, length, -1, size).swapaxes(1, 2) for each in (queries, keys, values))
    shared = heads // keys.shape[1]
    keys, values = np.repeat(_rotate(keys), shared, axis=1), np.repeat(values, shared, axis=1)
    scores = _rotate(queries) @ keys.swapaxes(-1, -2) / np.sqrt(size)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (shares / shares.sum(axis=-1, keepdims=True) @ values).swapaxes(1, 2).reshape(rows, length, width)


def _rotate(x: np.ndarray) -> np.ndarray:
    length, half = x.shape[-2], x.shape[-1] // 2
    angles = np.arange(length)[:, None] * 10000.0 ** -(np.arange(half) / half)
    left, right = x[..., :half], x[..., half:]
    return np.concatenate(
        [left * np.cos(angles) - right * np.sin(angles), left * np.sin(angles) + right * np.cos(angles)], axis=-1
    )
