"""How the log-probabilities are computed that an objective is made of."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlxops.training.batches import Batch
from mlxops.training.objectives.terms import Arrays, Score
from mlxops.training.ways import EXACT

_BLOCK = 128  # scores added up by themselves; the usual vocabularies are a multiple of it


def arrays_of(batch: Batch) -> dict[str, mx.array]:
    """The arrays of a batch as an objective and its score take them."""
    return {name: mx.array(each) for name, each in batch.arrays.items()}


def plain(model: nn.Module, *, way: str = EXACT) -> Score:
    """A score by the model's whole forward pass, in the type of its logits up to the softmax.

    What stands outside the mask counts nothing, whatever it is. `way` is that of the part `loss` (see `ways`).
    """
    cross_entropy = _exact_cross_entropy if way == EXACT else nn.losses.cross_entropy

    def score(part: Arrays) -> mx.array:
        tokens, mask = part["tokens"], part["mask"]
        losses = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).astype(mx.float32)
        return -mx.where(mask, losses, 0.0)

    return score


def _exact_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """The cross-entropy to the last digits of float32, also over a large vocabulary on a CPU.

    There MLX adds one small term after the other to a large sum and ends up to 0.0004 nats too low. Sums of blocks, and
    then of these, are right to 0.000002 and take no longer. On a GPU its own function is fast and right, and numbers of
    half precision have no digits to lose.
    """
    vocabulary = logits.shape[-1]
    if logits.dtype != mx.float32 or mx.default_device() != mx.Device(mx.cpu) or vocabulary <= _BLOCK:
        return nn.losses.cross_entropy(logits, targets)
    whole = vocabulary - vocabulary % _BLOCK
    blocks = logits if whole == vocabulary else logits[..., :whole]
    sums = mx.logsumexp(blocks.reshape(*logits.shape[:-1], -1, _BLOCK), axis=-1)
    if whole < vocabulary:
        rest = mx.logsumexp(logits[..., whole:], axis=-1, keepdims=True)
        sums = mx.concatenate([sums, rest], axis=-1)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(sums, axis=-1) - chosen
