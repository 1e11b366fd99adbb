"""The elements of a JSON array in a file, one at a time: a large file is never in memory as a whole.

Only brackets, commas and strings are looked at here; whether an element is JSON is for whoever decodes it to say, so
that one broken row does not hide the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from gzip import GzipFile
from typing import IO

_CHUNK = 1 << 20
# All up to the next bracket or comma outside of strings. Possessive, so that a string without an end costs one pass.
_NEXT = re.compile(rb'(?:[^][{},"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([][{},])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it stands in the file: its number from 1, the line it begins in, its bytes without outer space."""

    number: int
    line: int
    text: bytes


class BrokenArray(ValueError):
    """The array's own structure is broken; the text is the reason, `number` the element at which it was seen."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def elements(stream: IO[bytes] | GzipFile, chunk: int = _CHUNK) -> Iterator[Element]:
    """The elements of the array that a stream holds; raises `BrokenArray` where it is cut off or more follows it."""
    buffer = stream.read(chunk)
    while b"[" not in buffer and (more := stream.read(chunk)):
        buffer += more
    number, depth = 1, 0
    start = place = buffer.index(b"[") + 1
    line = 1 + buffer.count(b"\n", 0, start)
    while True:
        found = _NEXT.match(buffer, place)
        if found is None:
            # An element longer than a chunk is looked through again: twice the chunk keeps that in proportion.
            more = stream.read(max(chunk, len(buffer) - start))
            if not more:
                raise BrokenArray(number, "the array has no end: the file is cut off, or a quote is missing")
            buffer, place, start = buffer[start:] + more, place - start, 0
            continue
        place = found.end()
        mark = found[1]
        if mark in b"[{":
            depth += 1
        elif depth and mark in b"]}":
            depth -= 1
        elif not depth:
            raw = buffer[start : place - 1]
            text = raw.strip()
            if text:
                yield Element(number, line + raw[: len(raw) - len(raw.lstrip())].count(b"\n"), text)
            elif mark == b"," or number > 1:
                raise BrokenArray(number, "there is a comma, and no row")
            if mark == b"}":
                raise BrokenArray(number, "a bracket is closed that was not opened")
            line += buffer.count(b"\n", start, place)
            start = place
            number += 1
            if mark == b"]":
                break
    _check_end(stream, buffer[start:], number, line, chunk)


def _check_end(stream: IO[bytes] | GzipFile, rest: bytes, number: int, line: int, chunk: int) -> None:
    while rest or (rest := stream.read(chunk)):
        if rest.strip():
            line += rest[: len(rest) - len(rest.lstrip())].count(b"\n")
            raise BrokenArray(number, f"more follows after the end of the array (line {line:,})")
        line += rest.count(b"\n")
        rest = b""
