"""Direct preference optimization as an objective: a batch of pairs, and what the model thought of them at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxops.rows import TokenRow
from mlxops.training import batches
from mlxops.training.batches import Batch
from mlxops.training.objectives.terms import Arrays, Objective, Score, part
from mlxops.training.score import arrays_of, plain


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one prompt. `reference` is the log-probability of the chosen less that of the rejected one."""

    chosen: TokenRow
    rejected: TokenRow
    origin: str
    reference: float = 0.0

    @property
    def length(self) -> int:
        return max(self.chosen.length, self.rejected.length)


def collate(pairs: Sequence[Pair]) -> Batch:
    chosen, rejected = batches.collate([each.chosen for each in pairs]), batches.collate([e.rejected for e in pairs])
    parts = (("chosen", chosen), ("rejected", rejected))
    arrays = {f"{side}.{name}": each for side, batch in parts for name, each in batch.arrays.items()}
    counts = {name: getattr(chosen, name) + getattr(rejected, name) for name in ("trained", "real", "positions")}
    arrays["reference"] = np.array([each.reference for each in pairs], np.float32)
    return Batch(arrays=arrays, origins=tuple(each.origin for each in pairs), **counts)


def preference(score: Score, batch: Arrays) -> mx.array:
    return score(part(batch, "chosen")).sum(axis=1) - score(part(batch, "rejected")).sum(axis=1)


def with_reference(model: nn.Module, pairs: Sequence[Pair]) -> list[Pair]:
    model.eval()
    found = preference(plain(model), arrays_of(collate(pairs)))
    return [replace(each, reference=float(value)) for each, value in zip(pairs, np.array(found), strict=True)]


def dpo(beta: float) -> Objective:
    def terms(score: Score, batch: Arrays) -> dict[str, mx.array]:
        margin = beta * (preference(score, batch) - batch["reference"])
        return {"loss": -nn.log_sigmoid(margin), "reward_margin": margin, "reward_accuracy": margin > 0}

    def weights(batch: Batch) -> dict[str, np.ndarray]:
        return dict.fromkeys(("loss", "reward_margin", "reward_accuracy"), np.ones(len(batch.origins)))

    return Objective(terms=terms, weights=weights)
