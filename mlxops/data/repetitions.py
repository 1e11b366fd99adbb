"""Rows that stood before, in one file or in another, word for word or nearly, kept in a few bytes each.

Of a row stay 8 bytes of a digest, 4 of the number of its line and 6 to 12 of a table to find it by; of one of the first
`NEAR_ROWS` rows with enough words, 68 more to find what is nearly the same.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mlxops.data.checking import Finding, warning
from mlxops.data.formats import Record

if TYPE_CHECKING:
    import numpy

EXACT, ELSEWHERE, NEAR = "exact duplicates", "the same row in two files", "near duplicates"

NEAR_ROWS = 1_000_000
"""Of more rows the first so many are compared with each other."""

_ALIKE = 0.85  # share of three-word pieces that two rows have in common
_NUMBERS, _BAND = 64, 8  # of a signature; rows with eight consecutive ones in common are compared
_NEIGHBOURS = 8
_FEWEST_WORDS = 8  # shorter rows are alike by chance
_PAIRS_AT_ONCE = 1 << 16
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


class Repetitions:
    """The rows of all files of a data set, in the order in which they are read."""

    def __init__(self, *, near: bool = True) -> None:
        self._near = near
        self._origins = _Origins()
        self._digests = array("Q")
        self._slots = array("I", bytes(4 * 64))  # the number of a row and 1, where its digest would be found
        self._rows = array("I")
        self._signatures = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether further rows are no longer compared with each other."""
        return len(self._rows) >= NEAR_ROWS

    def of_rows(self, records: Sequence[Record], contents: Sequence[str]) -> Iterator[Finding]:
        """The rows that repeat an earlier one word for word; the others are remembered. `contents` are the records'."""
        new: list[tuple[int, list[str]]] = []
        for record, content in zip(records, contents, strict=True):
            number = len(self._digests)
            self._origins.add(record.origin)
            self._digests.append(int.from_bytes(blake2b(content.encode(), digest_size=8).digest()))
            first = self._find(number)
            if first is not None:
                origin = self._origins[first]
                kind = EXACT if self._origins.file_of(first) == self._origins.file_of(number) else ELSEWHERE
                yield warning(kind, record.origin, f"the same as {origin}")
            elif self._near and not self.is_full and len(words := _words(record)) >= _FEWEST_WORDS:
                new.append((number, words))
        if new:
            self._rows.extend(number for number, _ in new)
            self._signatures += _signatures([words for _, words in new])

    def nearly(self) -> Iterator[Finding]:
        """The rows that are nearly the same as an earlier one, in their order."""
        if len(self._rows) < 2:
            return
        earliest = _earliest_alike(self._signatures)
        for place in (earliest < len(self._rows)).nonzero()[0].tolist():
            like = self._origins[self._rows[earliest[place]]]
            yield warning(NEAR, self._origins[self._rows[place]], f"nearly the same as {like}")

    def _find(self, number: int) -> int | None:
        """The earlier row with the digest of this one; where there is none, the row takes its place in the table."""
        if 3 * number >= 2 * len(self._slots):
            self._slots = array("I", bytes(2 * 4 * len(self._slots)))
            for earlier in range(number):
                self._place(earlier)
        return self._place(number)

    def _place(self, number: int) -> int | None:
        slots, digests = self._slots, self._digests
        last = len(slots) - 1
        digest = digests[number]
        slot = digest & last
        while taken := slots[slot]:
            if digests[taken - 1] == digest:
                return taken - 1
            slot = (slot + 1) & last
        slots[slot] = number + 1
        return None


class _Origins:
    """The names of rows (`file:line`) by their number, in four bytes each."""

    def __init__(self) -> None:
        self._lines = array("I")
        self._firsts: list[int] = []
        self._files: list[str] = []

    def add(self, origin: str) -> None:
        file = origin.rstrip("0123456789")
        if not self._files or self._files[-1] != file:
            self._firsts.append(len(self._lines))
            self._files.append(file)
        self._lines.append(int(origin[len(file) :]))

    def file_of(self, number: int) -> str:
        return self._files[bisect_right(self._firsts, number) - 1]

    def __getitem__(self, number: int) -> str:
        return f"{self.file_of(number)}{self._lines[number]}"


def _words(record: Record) -> list[str]:
    said = [record.text or "", *(turn["content"] for turn in record.messages if turn["role"] != "system")]
    return " ".join(said).lower().split()


def _signatures(rows: Sequence[list[str]]) -> bytes:
    """The last bytes of the minimal hashes of each row's pieces of three words."""
    import numpy
    from rensa import RMinHash

    hashes = numpy.array(RMinHash.hash_token_sets([[word for words in rows for word in words]])[0], dtype=numpy.uint64)
    first, second, third = (numpy.uint64(factor) for factor in _FACTORS)
    pieces = hashes[:-2] * first + hashes[1:-1] * second + hashes[2:] * third
    ends = numpy.cumsum([len(words) for words in rows])
    pieces = numpy.delete(pieces, [place for end in ends[:-1].tolist() for place in (end - 2, end - 1)])
    borders = [0, *(ends - 2 * numpy.arange(1, len(rows) + 1)).tolist()]
    digests = RMinHash.digest_matrix_from_flat_token_hashes(pieces, borders, num_perm=_NUMBERS, seed=1).to_rows()
    return (numpy.array(digests, dtype=numpy.uint32) & 255).astype(numpy.uint8).tobytes()


def _earliest_alike(signatures: bytearray) -> Any:
    """For each signature the place of the earliest one found that is like it, or their number where there is none."""
    import numpy

    numbers = numpy.frombuffer(signatures, dtype=numpy.uint8).reshape(-1, _NUMBERS)
    bands = numbers.view(numpy.uint64)
    earliest = numpy.full(len(numbers), len(numbers), dtype=numpy.int64)
    for band in range(bands.shape[1]):
        order = numpy.argsort(bands[:, band], kind="stable")  # so that equal ones stay in their order
        keys = bands[order, band]
        for apart in range(1, _NEIGHBOURS + 1):
            same = (keys[apart:] == keys[:-apart]).nonzero()[0]
            for pairs in _pieces(same):
                later, earlier = order[pairs + apart], order[pairs]
                alike = (numbers[later] == numbers[earlier]).mean(axis=1) >= _ALIKE
                numpy.minimum.at(earliest, later[alike], earlier[alike])
    return earliest


def _pieces(pairs: numpy.ndarray) -> Iterable[numpy.ndarray]:
    return (pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE))
