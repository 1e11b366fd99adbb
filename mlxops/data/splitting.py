"""How training rows are divided where there is no validation file.

The rule: SHA-256 over the seed and the row's content; the first eight bytes, as a fraction of 2⁶⁴, below `VALID_SHARE`
mean validation. So the same row is always on the same side, in any file, at any place in it and among any other rows,
and duplicates stay together. Where a side would be empty, it gets the row nearest to it: the one exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from mlxops.data.formats import Record

VALID_SHARE = 0.1


def divide(records: list[Record], *, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """The rows to train on and the rows to validate on, each in their order; no validation if all rows are the same."""
    is_kept_back = rule((record.content for record in records), seed=seed)
    is_valid = [is_kept_back(record.content) for record in records]
    train = [record for record, held in zip(records, is_valid, strict=True) if not held]
    valid = [record for record, held in zip(records, is_valid, strict=True) if held]
    return train, valid


def rule(contents: Iterable[str], *, seed: int = 0) -> Callable[[str], bool]:
    """Whether a row of such a content is kept back for validation.

    Of the contents of all rows as many are read as it takes to know that no side is empty, which are few.
    """
    lowest, highest = 1.0, 0.0
    for content in contents:
        place = _place(content, seed)
        lowest, highest = min(lowest, place), max(highest, place)
        if lowest < VALID_SHARE <= highest:
            break
    if lowest >= highest:
        return lambda _: False
    limit = min(max(VALID_SHARE, lowest), highest)
    return lambda content: (place := _place(content, seed)) < limit or place == lowest


def _place(content: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
