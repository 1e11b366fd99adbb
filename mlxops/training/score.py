"""How the log-probabilities are computed that an objective is made of."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlxops.training.batches import Batch
from mlxops.training.objectives.terms import Arrays, Score


def arrays_of(batch: Batch) -> dict[str, mx.array]:
    """The arrays of a batch as an objective and its score take them."""
    return {name: mx.array(each) for name, each in batch.arrays.items()}


def plain(model: nn.Module) -> Score:
    """A score by the model's whole forward pass, in the type of its logits up to the softmax.

    What stands outside the mask counts nothing, whatever it is.
    """

    def score(part: Arrays) -> mx.array:
        tokens, mask = part["tokens"], part["mask"]
        losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).astype(mx.float32)
        return -mx.where(mask, losses, 0.0)

    return score
