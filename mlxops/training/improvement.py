"""Whether a validation is better than those before it, and whether the difference is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from mlxops.training.batches import Batch
from mlxops.training.state import Improvement


def ratio(losses: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """The loss a token over rows, and its standard error; 0 where one row cannot tell.

    The standard error is that of a ratio of sums over rows (Cochran, Sampling Techniques, §2.11): rows are drawn,
    tokens are not.

    >>> ratio(np.array([2.0, 4.0]), np.array([1, 2]))
    (2.0, 0.0)
    """
    total = tokens.sum()
    mean = float(losses.sum() / total)
    count = len(losses)
    if not math.isfinite(mean):
        return mean, math.nan
    if count < 2:
        return mean, 0.0
    spread = float(np.square(losses - mean * tokens).sum())
    return mean, math.sqrt(spread * count / (count - 1)) / float(total)


def by_origin(losses: np.ndarray, tokens: np.ndarray, origins: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Losses and tokens summed over the rows of one origin, in the order in which origins first come.

    The rows that one conversation became are alike, so they are one draw and not several: a standard error that takes
    them apart is too small (Cochran, Sampling Techniques, §9A.2, on clusters).

    >>> by_origin(np.array([1.0, 2.0, 4.0]), np.array([1, 1, 2]), ["a:1", "a:2", "a:1"])
    (array([5., 2.]), array([3, 1]))
    """
    places = {origin: place for place, origin in enumerate(dict.fromkeys(origins))}
    if len(places) == len(origins):
        return losses, tokens
    of_row = [places[origin] for origin in origins]
    summed = np.bincount(of_row, weights=tokens).astype(tokens.dtype)
    return np.bincount(of_row, weights=losses), summed


def is_real(before: np.ndarray, now: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether the loss fell by more than the standard error of its fall, over the same rows before and now.

    The rows are compared one by one (Miller 2024, arXiv:2411.00640, on paired differences): how hard a row is, which is
    nearly all that the standard error of one validation consists of, is the same before and now and cancels out.

    >>> is_real(np.array([10.0, 30.0]), np.array([9.0, 29.0]), np.array([5, 5]))
    True
    >>> is_real(np.array([10.0, 30.0]), np.array([5.0, 34.0]), np.array([5, 5]))
    False
    """
    fall, error = ratio(before - now, tokens)
    return fall > error


def take(there: Improvement, *, iteration: int, rows: np.ndarray, tokens: np.ndarray, rows_of: str) -> Improvement:
    """What the validations have shown with one more: `rows` are its losses, each summed over the row's `tokens`.

    A real improvement is the lowest loss so far, and a real fall since the real improvement before it: so many small
    steps add up to one. Losses of other rows (`--val-batches`, `valid.jsonl`) cannot be compared: all starts again.
    """
    loss, _ = ratio(rows, tokens)
    if not math.isfinite(loss):
        return replace(there, since=there.since + 1)
    if there.lowest is None or there.rows_of != rows_of:
        return _improved(loss, iteration, rows, rows_of)
    if loss >= there.lowest:
        return replace(there, since=there.since + 1)
    if is_real(np.array(there.rows), rows, tokens):
        return _improved(loss, iteration, rows, rows_of)
    return replace(there, lowest=loss, lowest_at=iteration, since=there.since + 1)


def _improved(loss: float, iteration: int, rows: np.ndarray, rows_of: str) -> Improvement:
    return Improvement(lowest=loss, lowest_at=iteration, rows=rows.tolist(), rows_of=rows_of)


def identity(batches: Sequence[Batch]) -> str:
    """Which rows in which batches, as a hash: only then are two validations compared row by row."""
    digest = blake2b(digest_size=16)
    for batch in batches:
        for name, array in batch.arrays.items():
            if name != "mask":  # checkpoints hold hashes without its shape, which is that of the tokens
                digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
