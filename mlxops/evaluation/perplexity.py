"""Perplexity: how likely a model finds the tokens of rows, those that training would train and all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlxops.evaluation.measures import Measure

WORST = 5
"""How many of the rows with the highest perplexity are named."""

_TOLERANCE = 0.01  # nats per token: a perplexity that changed by 1 %


class Batch(Protocol):
    """Rows as arrays: `mask` says which tokens are trained, `real` which are no padding; both from the second on."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...

    @property
    def origins(self) -> tuple[str, ...]: ...


LogProbabilities = Callable[[Any], np.ndarray]
"""Takes a batch; returns the log-probability of each token from the second on, in nats, and 0 at padding."""


@dataclass(frozen=True, kw_only=True)
class RowLoss:
    """What a model thinks of one row: nats summed over its trained tokens, and over all its tokens from the second."""

    origin: str
    loss: float
    tokens: int
    loss_all: float
    tokens_all: int

    @property
    def perplexity(self) -> float:
        """That of the trained tokens."""
        mean = self.loss / self.tokens
        return math.exp(mean) if mean < 700 else math.inf


@dataclass
class _Sums:
    loss: float = 0.0
    tokens: int = 0
    loss_all: float = 0.0
    tokens_all: int = 0
    places: list[int] = field(default_factory=list)


def row_losses(
    batches: Iterable[Batch], log_probabilities: LogProbabilities, progress: Callable[[int], None] = lambda done: None
) -> list[RowLoss]:
    """The losses of rows in the order in which they come; rows of one origin, the parts of a conversation, are one.

    `progress` is told how many rows are done.
    """
    sums: dict[str, _Sums] = {}
    done = 0
    for batch in batches:
        losses = -np.asarray(log_probabilities(batch), dtype=np.float64)
        trained, real = batch.arrays["mask"], batch.arrays["real"]
        for place, origin in enumerate(batch.origins):
            each = sums.setdefault(origin, _Sums())
            each.loss += float(losses[place][trained[place]].sum())
            each.tokens += int(trained[place].sum())
            each.loss_all += float(losses[place][real[place]].sum())
            each.tokens_all += int(real[place].sum())
        done += len(batch.origins)
        progress(done)
    return [
        RowLoss(
            origin=origin,
            loss=each.loss,
            tokens=each.tokens,
            loss_all=each.loss_all,
            tokens_all=each.tokens_all,
        )
        for origin, each in sums.items()
    ]


def measures(rows: Sequence[RowLoss], byte_counts: Mapping[str, int]) -> list[Measure]:
    """The measures of rows: loss (nats per trained token), perplexity, that of all tokens, and bits per byte.

    `byte_counts` has the bytes of each row's trained words. The tokens that end a turn count as bits and have no bytes.
    """
    origins = [row.origin for row in rows]
    loss, tokens = _array(row.loss for row in rows), _array(row.tokens for row in rows)
    loss_all, tokens_all = _array(row.loss_all for row in rows), _array(row.tokens_all for row in rows)
    sizes = _array(byte_counts[origin] for origin in origins)

    def measure(metric: str, values: np.ndarray, weights: np.ndarray, *, is_exponential: bool = False) -> Measure:
        return Measure(
            metric=metric,
            better="lower",
            rows=origins,
            values=values,
            weights=weights,
            is_exponential=is_exponential,
            tolerance=_TOLERANCE,
        )

    return [
        measure("perplexity", loss, tokens, is_exponential=True),
        measure("perplexity_all", loss_all, tokens_all, is_exponential=True),
        measure("loss", loss, tokens),
        measure("bits_per_byte", loss / math.log(2), sizes),
    ]


def worst(rows: Sequence[RowLoss]) -> list[RowLoss]:
    """The rows with the highest perplexity, the worst first; those whose loss is no number before all."""
    return sorted(rows, key=lambda row: (math.isnan(row.loss), row.loss / row.tokens), reverse=True)[:WORST]


def _array(values: Iterable[float]) -> np.ndarray:
    return np.array(list(values), dtype=np.float64)
