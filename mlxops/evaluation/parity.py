"""Whether two models say the same: their logits on the trained tokens of the same rows, the one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mlxops.evaluation.measures import Better, Measure


class Batch(Protocol):
    """Rows as arrays: `tokens` of shape (rows, width), and `mask` (rows, width - 1): which next tokens are trained."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...

    @property
    def origins(self) -> tuple[str, ...]: ...


Logits = Callable[[mx.array], Any]
"""Takes tokens of shape (rows, width) and returns the logits of the token after each."""


@dataclass(frozen=True, kw_only=True)
class RowParity:
    """Two models on one row, summed over its trained tokens.

    `changed` counts the tokens whose most likely token is another one, `divergence` is the KL divergence of the second
    model from the first in nats, `before` and `after` what each of them loses; `logits` is the largest difference.
    """

    origin: str
    tokens: int
    changed: int
    divergence: float
    before: float
    after: float
    logits: float


def compare_rows(
    batches: Iterable[Batch], before: Logits, after: Logits, progress: Callable[[int], None] = lambda done: None
) -> list[RowParity]:
    """Both models on each row, in the order in which the rows come; the rows of one origin are one.

    All is computed in float32 from the models' logits. `progress` is told how many rows are done.
    """
    found: dict[str, RowParity] = {}
    done = 0
    for batch in batches:
        tokens, mask = mx.array(batch.arrays["tokens"]), batch.arrays["mask"]
        first, second = (model(tokens[:, :-1]) for model in (before, after))
        for place, origin in enumerate(batch.origins):
            trained = mx.array(np.flatnonzero(mask[place]))
            targets = tokens[place, 1:][trained]
            row = _compare(origin, first[place][trained], second[place][trained], targets)
            found[origin] = row if origin not in found else _joined(found[origin], row)
        done += len(batch.origins)
        progress(done)
    return list(found.values())


def measures(rows: Sequence[RowParity]) -> tuple[list[Measure], list[Measure]]:
    """The measures of the first model, and those of the second: its perplexity, and how far it is from the first."""
    tokens = _array(row.tokens for row in rows)

    def measure(
        metric: str, values: Iterable[float], *, better: Better = "lower", is_exponential: bool = False
    ) -> Measure:
        return Measure(
            metric=metric,
            better=better,
            rows=[row.origin for row in rows],
            values=_array(values),
            weights=tokens,
            is_exponential=is_exponential,
        )

    return [measure("perplexity", (row.before for row in rows), is_exponential=True)], [
        measure("perplexity", (row.after for row in rows), is_exponential=True),
        measure("changed_tokens", (row.changed for row in rows)),
        measure("kl_divergence", (row.divergence for row in rows)),
    ]


def _compare(origin: str, first: mx.array, second: mx.array, targets: mx.array) -> RowParity:
    first, second = first.astype(mx.float32), second.astype(mx.float32)
    log_p, log_q = (each - mx.logsumexp(each, axis=-1, keepdims=True) for each in (first, second))
    parts = (
        (mx.argmax(first, axis=-1) != mx.argmax(second, axis=-1)).sum(),
        (mx.exp(log_p) * (log_p - log_q)).sum(),
        *(-mx.take_along_axis(each, targets[:, None], axis=-1).sum() for each in (log_p, log_q)),
        mx.abs(first - second).max(),
    )
    mx.eval(*parts)
    changed, divergence, before, after, logits = (float(np.array(part)) for part in parts)
    return RowParity(
        origin=origin,
        tokens=int(targets.size),
        changed=int(changed),
        divergence=max(divergence, 0.0),  # below 0 is rounding: equal models have none
        before=before,
        after=after,
        logits=logits,
    )


def _joined(one: RowParity, other: RowParity) -> RowParity:
    return RowParity(
        origin=one.origin,
        tokens=one.tokens + other.tokens,
        changed=one.changed + other.changed,
        divergence=one.divergence + other.divergence,
        before=one.before + other.before,
        after=one.after + other.after,
        logits=math.nan if math.isnan(one.logits + other.logits) else max(one.logits, other.logits),
    )


def _array(values: Iterable[float]) -> np.ndarray:
    return np.array(list(values), dtype=np.float64)
