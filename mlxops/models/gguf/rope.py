"""Rotary positions: what a GGUF file says of them, in the words of mlx-lm.

llama.cpp divides the speeds by factors: of `linear` and `yarn` the parameters are in the metadata, of llama3 and
longrope the factors themselves are tensors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlxops.models.gguf.keys import Keys, refusal

if TYPE_CHECKING:
    import numpy

# Of Llama 3.1 to 3.3; their factor (8 or 32) stands in the tensor itself.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def scaling(keys: Keys, context: int) -> dict[str, Any] | None:
    """The `rope_scaling` that the metadata say, None for none. Refuses what mlx-lm would compute in another way."""
    keys.ignore("rope.scaling.finetuned")
    keys.expect("rope.scale_linear", 1.0)
    factor = keys.number("rope.scaling.factor", 1.0)
    # llama.cpp takes a factor without a type for linear.
    kind = keys.text("rope.scaling.type", "linear")
    original = keys.whole("rope.scaling.original_context_length", context)
    keys.expect("rope.scaling.attn_factor", 1.0)
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    if kind == "linear":
        return {"type": kind, "rope_type": kind, "factor": factor}
    if kind != "yarn":
        raise refusal(f"rope scaling of the type {kind!r} is not known")
    keys.expect("rope.scaling.yarn_ext_factor", 1.0)
    keys.expect("rope.scaling.yarn_attn_factor", 1.0)
    if keys.optional("rope.scaling.yarn_log_multiplier") not in (None, 0, 0.0):
        raise refusal("yarn with a multiplier of its own is not known")
    return {
        "type": kind,
        "rope_type": kind,
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def llama3_scaling(factors: numpy.ndarray, theta: float) -> dict[str, Any] | None:
    """The parameters whose factors are those of a `rope_freqs` tensor, None for factors of 1; others are refused."""
    import numpy

    if (factors == 1).all():
        return None
    factor = _whole(float(factors[-1]))
    if not numpy.allclose(factors, _llama3_factors(len(factors), theta, factor), rtol=1e-4, atol=0):
        raise refusal("the factors in rope_freqs.weight are those of no Llama 3 that was published")
    return {"type": "llama3", "rope_type": "llama3", "factor": factor, **_LLAMA3}


def _llama3_factors(count: int, theta: float, factor: float) -> numpy.ndarray:
    """The slow speeds are divided by the factor, the fast ones left alone, with a slope between."""
    import numpy

    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    lengths = 2 * math.pi * theta ** (numpy.arange(count) / count)
    slope = numpy.clip((_LLAMA3["original_max_position_embeddings"] / lengths - low) / (high - low), 0, 1)
    return 1 / ((1 - slope) / factor + slope)


def longrope(keys: Keys, context: int, long: numpy.ndarray, short: numpy.ndarray) -> tuple[dict[str, Any], int]:
    """The `rope_scaling` of factors for long and short texts, and the context that the model had at first.

    Refuses a strengthening of the attention that is not the one mlx-lm works out from the two contexts.
    """
    original = keys.whole("rope.scaling.original_context_length")
    keys.ignore("rope.scaling.finetuned")
    keys.expect("rope.scaling.type", "longrope", "none")
    keys.expect("rope.scaling.factor", 1.0)
    growth = context / original
    strength = math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 and original > 1 else 1.0
    if strength != 1 and keys.optional("rope.scaling.attn_factor") is None:
        raise refusal("it has long factors and no rope.scaling.attn_factor")
    keys.expect("rope.scaling.attn_factor", strength)
    factors = {"long_factor": _decimals(long), "short_factor": _decimals(short)}
    return {"type": "longrope", "rope_type": "longrope", **factors}, original


def _decimals(factors: numpy.ndarray) -> list[float]:
    return [float(str(factor)) for factor in factors]


def _whole(value: float) -> float:
    """A factor such as 8 that was held in float32."""
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-4) else value
