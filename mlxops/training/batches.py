"""Which rows form a batch, and in which order batches come.

Which rows form a batch is a function of the rows and the seed alone, and like length goes with like; the order of the
batches is a function of seed and epoch. Both come from BLAKE2 hashes, so no library's generator can change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from mlxops.rows import TokenRow

PAD_TO = 16
"""Inputs are padded to a multiple of this, so that few shapes have to be compiled."""


class Batch(NamedTuple):
    """Rows as arrays, padded at the end.

    `tokens` is int32 of shape (rows, width), `mask` bool of shape (rows, width - 1): whether the token after that
    position is trained. `trained` counts the trained tokens, `real` those that are no padding.
    """

    tokens: np.ndarray
    mask: np.ndarray
    origins: tuple[str, ...]
    trained: int
    real: int


@dataclass(frozen=True)
class Plan:
    """The batches of a training set: `groups` holds the row numbers of each."""

    rows: Sequence[TokenRow]
    groups: tuple[tuple[int, ...], ...]
    seed: int

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def trained(self) -> tuple[int, ...]:
        """The trained tokens of each group."""
        return tuple(sum(self.rows[index].trained for index in group) for group in self.groups)

    def position(self, iteration: int) -> tuple[int, int]:
        """The epoch (from 0) and the group of an iteration (from 1)."""
        epoch, step = divmod(iteration - 1, len(self.groups))
        return epoch, _order(self.seed, epoch, len(self.groups))[step]

    def batch(self, iteration: int) -> Batch:
        """The batch of an iteration (from 1)."""
        return collate([self.rows[index] for index in self.groups[self.position(iteration)[1]]])

    def trained_in(self, first: int, last: int) -> int:
        """The trained tokens of the iterations `first` to `last`."""
        return sum(self.trained[self.position(iteration)[1]] for iteration in range(first, last + 1))


def plan(rows: Sequence[TokenRow], *, batch_size: int, seed: int) -> Plan:
    """Rows of like length in batches of `batch_size`, the last one with what is left; every row is in one of them."""
    shuffled = sorted(range(len(rows)), key=lambda index: _draw(seed, "row", index))
    alike = sorted(shuffled, key=lambda index: _width(rows[index].length))
    groups = tuple(tuple(alike[start : start + batch_size]) for start in range(0, len(alike), batch_size))
    return Plan(rows, groups, seed)


def fixed_batches(rows: Sequence[TokenRow], *, batch_size: int, count: int, seed: int) -> list[Batch]:
    """Up to `count` batches (-1: all) for validation: the same rows in the same batches at every call.

    The rows are drawn by the seed and then put together by length.
    """
    drawn = sorted(range(len(rows)), key=lambda index: _draw(seed, "validation", index))
    if count >= 0:
        drawn = drawn[: count * batch_size]
    chosen = sorted((rows[index] for index in drawn), key=lambda row: row.length)
    return [collate(chosen[start : start + batch_size]) for start in range(0, len(chosen), batch_size)]


def collate(rows: Sequence[TokenRow]) -> Batch:
    """The rows as one batch, as wide as the longest asks for."""
    width = 1 + PAD_TO * _width(max(row.length for row in rows))
    tokens = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), bool)
    for place, row in enumerate(rows):
        tokens[place, : row.length] = row.tokens
        for start, stop in row.spans:
            mask[place, start:stop] = True
    trained = mask[:, 1:]
    return Batch(
        tokens, trained, tuple(row.origin for row in rows), int(trained.sum()), sum(row.length for row in rows)
    )


def step_key(seed: int, iteration: int) -> int:
    """The 64-bit seed of everything random in one iteration."""
    return int.from_bytes(_draw(seed, "step", iteration), "big")


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(range(count), key=lambda index: _draw(seed, f"epoch {epoch}", index)))


def _draw(seed: int, what: str, index: int) -> bytes:
    return blake2b(f"{seed}/{what}/{index}".encode(), digest_size=8).digest()


def _width(length: int) -> int:
    return max(1, -(-(length - 1) // PAD_TO))
