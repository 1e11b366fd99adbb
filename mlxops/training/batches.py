"""Which rows form a batch, and in which order batches come.

Which rows form a batch is a function of the rows and the seed alone, and like length goes with like; the order of the
batches is a function of seed and epoch. Both come from BLAKE2 hashes, so no library's generator can change them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from mlxops.rows import TokenRow

if TYPE_CHECKING:
    import numpy as np

PAD_TO = 16
"""Inputs are padded to a multiple of this, so that few shapes have to be compiled."""


class Row(Protocol):
    """What a batch is made of: `length` in tokens says which rows are alike."""

    @property
    def length(self) -> int: ...

    @property
    def origin(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows as named arrays.

    `collate` makes `tokens`, int32 of shape (rows, width) and padded at the end, and `mask`, bool of shape
    (rows, width - 1): whether the token after that position is trained. A batch with several parts names them
    `PART.tokens` and `PART.mask`; other names are for its objective alone. `origins` names the rows, `trained` counts
    the trained tokens, `real` those that are no padding, `positions` all.
    """

    arrays: Mapping[str, np.ndarray]
    origins: tuple[str, ...]
    trained: int
    real: int
    positions: int


def collate(rows: Sequence[TokenRow]) -> Batch:
    """The rows as one batch, as wide as the longest asks for."""
    import numpy as np

    width = 1 + PAD_TO * _width(max(row.length for row in rows))
    tokens = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), bool)
    for place, row in enumerate(rows):
        tokens[place, : row.length] = row.tokens
        for start, stop in row.spans:
            mask[place, start:stop] = True
    trained = mask[:, 1:]
    return Batch(
        arrays={"tokens": tokens, "mask": trained},
        origins=tuple(row.origin for row in rows),
        trained=int(trained.sum()),
        real=sum(row.length for row in rows),
        positions=tokens.size,
    )


@dataclass(frozen=True)
class Plan:
    """The batches of a training set: `groups` holds the row numbers of each, and `collate` makes a batch of rows."""

    rows: Sequence[Row]
    groups: tuple[tuple[int, ...], ...]
    seed: int
    collate: Callable[[Sequence[Any]], Batch]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def loads(self) -> set[tuple[int, int, int]]:
        """What batches ask of a model: rows, the positions of each, and how many are projected onto the vocabulary.

        For rows that count their trained tokens.
        """
        trained = [sum(self.rows[index].trained for index in group) for group in self.groups]  # type: ignore[attr-defined]
        shapes = zip(self.shapes_of_groups, trained, strict=True)
        return {(rows, width, projected(trained, rows * width)) for (rows, width), trained in shapes}

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """The shapes that batches have: rows, and positions that the model computes for each."""
        return set(self.shapes_of_groups)

    @property
    def shapes_of_groups(self) -> list[tuple[int, int]]:
        """The shape of each group's batch."""
        longest = (max(self.rows[index].length for index in group) for group in self.groups)
        return [(len(group), PAD_TO * _width(length)) for group, length in zip(self.groups, longest, strict=True)]

    def position(self, iteration: int) -> tuple[int, int]:
        """The epoch (from 0) and the group of an iteration (from 1)."""
        epoch, step = divmod(iteration - 1, len(self.groups))
        return epoch, _order(self.seed, epoch, len(self.groups))[step]

    def next_use(self, iteration: int) -> int:
        """The iteration, in the next epoch, at which the group of this one comes again."""
        epoch, index = self.position(iteration)
        return (epoch + 1) * len(self.groups) + 1 + _order(self.seed, epoch + 1, len(self.groups)).index(index)

    def batch(self, iteration: int) -> Batch:
        """The batch of an iteration (from 1)."""
        return self.collate([self.rows[index] for index in self.groups[self.position(iteration)[1]]])


def plan(
    rows: Sequence[Row], *, batch_size: int, seed: int, collate: Callable[[Sequence[Any]], Batch] = collate
) -> Plan:
    """Rows of like length in batches of `batch_size`, the last one with what is left; every row is in one of them."""
    shuffled = sorted(range(len(rows)), key=lambda index: _draw(seed, "row", index))
    alike = sorted(shuffled, key=lambda index: _width(rows[index].length))
    groups = tuple(tuple(alike[start : start + batch_size]) for start in range(0, len(alike), batch_size))
    return Plan(rows, groups, seed, collate)


def fixed_batches(
    rows: Sequence[Row],
    *,
    batch_size: int,
    count: int,
    seed: int,
    collate: Callable[[Sequence[Any]], Batch] = collate,
) -> list[Batch]:
    """Up to `count` batches (-1: all) for validation: the same rows in the same batches at every call.

    The rows are drawn by the seed and then put together by length.
    """
    drawn = sorted(range(len(rows)), key=lambda index: _draw(seed, "validation", index))
    if count >= 0:
        drawn = drawn[: count * batch_size]
    chosen = sorted((rows[index] for index in drawn), key=lambda row: row.length)
    return [collate(chosen[start : start + batch_size]) for start in range(0, len(chosen), batch_size)]


def projected(trained: int, positions: int) -> int:
    """How many positions are projected where so many of all are trained: one of few counts, to compile few shapes."""
    step = max(16, 1 << (max(positions // 32, 1) - 1).bit_length())
    return max(1, -(-trained // step)) * step


def step_key(seed: int, iteration: int) -> int:
    """The 64-bit seed of everything random in one iteration."""
    return int.from_bytes(_draw(seed, "step", iteration), "big")


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(range(count), key=lambda index: _draw(seed, f"epoch {epoch}", index)))


def _draw(seed: int, what: str, index: int) -> bytes:
    return blake2b(f"{seed}/{what}/{index}".encode(), digest_size=8).digest()


def _width(length: int) -> int:
    return max(1, -(-(length - 1) // PAD_TO))
