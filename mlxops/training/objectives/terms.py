"""What an objective is: named values per unit of a batch, and a loss that is a sum of terms.

Accumulation, validation, the guard against values that are not finite and checkpoints know of an objective what stands
here and no more. What belongs to one objective alone has a module of its own beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlxops.training.batches import Batch

if TYPE_CHECKING:
    import mlx.core as mx

Arrays = Mapping[str, "mx.array"]
"""The arrays of a batch, or of a part of it, by name."""

Score = Callable[[Arrays], "mx.array"]
"""Takes a part of a batch, with `tokens` of shape (rows, width) and `mask` of (rows, width - 1). Returns the float32
log-probability of the token after each position, of the shape of `mask`, and 0 where that token is not trained."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What training minimizes over units: rows, or pairs of rows, or whatever a batch consists of.

    `weights` names the weight of each unit of a batch on the host, before the forward pass; `terms` names the value of
    each unit, under the same names, from what `score` gives for parts of the batch. The loss is the sum of its terms:
    the names in `coefficients`, each the sum of its values over the sum of its weights, times its coefficient. Both
    sums go over all batches of an optimizer update. Every other name is a metric, the mean by its weights.

    `has_coupled_units` says that a unit's value depends on the rest of its batch. The batches are then what a
    validation's standard error is computed from.
    """

    terms: Callable[[Score, Arrays], dict[str, mx.array]]
    weights: Callable[[Batch], dict[str, np.ndarray]]
    coefficients: Mapping[str, float] = field(default_factory=lambda: {"loss": 1.0})
    has_coupled_units: bool = False

    def loss(self, values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
        """The loss of summed values and weights; None where no term has any weight."""
        terms = [each * (values[name] / weights[name]) for name, each in self.coefficients.items() if weights.get(name)]
        return sum(terms) if terms else None

    def metrics(self, values: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        """The mean of each metric, and of each term where there are several; NaN where one has no weight."""
        is_alone = len(self.coefficients) == 1
        shown = [name for name in values if not (is_alone and name in self.coefficients)]
        return {name: values[name] / weights[name] if weights.get(name) else math.nan for name in shown}

    def joined(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The values, or the weights, of several batches by unit; by batch where units are coupled."""
        return {
            name: np.array([each[name].sum() for each in batches])
            if self.has_coupled_units
            else np.concatenate([each[name] for each in batches])
            for name in batches[0]
        }

    def per_unit(
        self, values: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """One value and one weight per unit, whose ratio of sums is the loss and has the standard error of the loss.

        The weights are those of the first term. Another term's value is put on that scale, and its own weight is
        replaced: to first order, a ratio of sums moves with a unit as its value less the mean times its weight.
        """
        first, *others = self.coefficients
        total = weights[first].sum()
        losses = self.coefficients[first] * values[first]
        for name in others:
            own = weights[name].sum()
            if own:
                scale, mean = total / own, values[name].sum() / own
                moved = scale * values[name] + mean * (weights[first] - scale * weights[name])
                losses = losses + self.coefficients[name] * moved
        return losses, weights[first]


def part(batch: Arrays, name: str) -> Arrays:
    """The arrays of one part of a batch: those called `name.…`, without that beginning."""
    return {each.removeprefix(f"{name}."): value for each, value in batch.items() if each.startswith(f"{name}.")}
