"""The loss of a batch. A new objective is another function of this shape."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


def row_losses(model: nn.Module, tokens: mx.array, mask: mx.array) -> mx.array:
    """The cross-entropy of the trained tokens (in the type of the logits), summed over each row in float32.

    `tokens` has the shape (rows, width), `mask` (rows, width - 1); the result (rows,). Positions outside the mask
    count nothing, whatever they hold, and an empty mask gives 0.
    """
    logits = model(tokens[:, :-1])
    losses = nn.losses.cross_entropy(logits, tokens[:, 1:]).astype(mx.float32)
    return mx.where(mask, losses, 0.0).sum(axis=1)
