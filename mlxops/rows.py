"""One tokenized row: the word that `data` and `training` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """A row as the model sees it.

    `tokens` is an int32 array of shape (length,); `spans` are half-open ranges of positions in it that are trained
    (a token at position 0 has nothing before it and is never trained); `origin` is `file:line`.
    """

    tokens: numpy.ndarray
    spans: tuple[tuple[int, int], ...]
    origin: str

    @property
    def length(self) -> int:
        """The number of tokens."""
        return len(self.tokens)

    @property
    def trained(self) -> int:
        """The number of tokens that are trained."""
        return sum(stop - max(start, 1) for start, stop in self.spans if stop > max(start, 1))
