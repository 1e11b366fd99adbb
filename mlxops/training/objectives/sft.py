"""Supervised fine-tuning: the cross-entropy of the trained tokens, each of the same weight."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlxops.training.batches import Batch
from mlxops.training.objectives.terms import Arrays, Objective, Score


def terms(score: Score, batch: Arrays) -> dict[str, mx.array]:
    """The cross-entropy summed over the trained tokens of each row; 0 for a row without any."""
    return {"loss": 0.0 - score(batch).sum(axis=1)}  # a difference, since the negative of 0 is another 0


def weights(batch: Batch) -> dict[str, np.ndarray]:
    """The trained tokens of each row."""
    return {"loss": batch.arrays["mask"].sum(axis=1)}


SUPERVISED = Objective(terms=terms, weights=weights)
