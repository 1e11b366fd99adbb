"""How training rows are divided where there is no validation file.

The rule: SHA-256 over the seed and the row's content; the first eight bytes, as a fraction of 2⁶⁴, below `VALID_SHARE`
mean validation. So the same row is always on the same side, in any file, at any place in it and among any other rows,
and duplicates stay together. Where a side would be empty, it gets the row nearest to it: the one exception.
"""

from __future__ import annotations

import hashlib

from mlxops.data.formats import Record

VALID_SHARE = 0.1


def divide(records: list[Record], *, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """The rows to train on and the rows to validate on, each in their order; no validation if all rows are the same."""
    places = [_place(record, seed) for record in records]
    lowest, highest = min(places, default=0.0), max(places, default=0.0)
    if lowest == highest:
        return records, []
    limit = min(max(VALID_SHARE, lowest), highest)
    is_valid = [place < limit or place == lowest for place in places]
    train = [record for record, held in zip(records, is_valid, strict=True) if not held]
    valid = [record for record, held in zip(records, is_valid, strict=True) if held]
    return train, valid


def is_kept_back(content: str, *, seed: int = 0) -> bool:
    """Whether the rule puts a row of this content on the side of validation, whatever rows there are besides."""
    return _place_of(content, seed) < VALID_SHARE


def _place(record: Record, seed: int) -> float:
    return _place_of(record.content, seed)


def _place_of(content: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
