"""The rows of one file, JSONL or a JSON array, plain or compressed with gzip, and every problem of every row."""

from __future__ import annotations

import codecs
import gzip
import json
import shlex
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mlxops.data import file_types, json_array
from mlxops.data.formats import Record, Unusable, parse
from mlxops.errors import BadRequest

PLAIN = (".jsonl", ".ndjson", ".json")
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
GZIPPED = tuple(f"{ending}.gz" for ending in PLAIN)


@dataclass
class Findings:
    """What is wrong so far: `problems` for people to look up, `hints` of which the first is shown.

    `twice` holds the rows in which a key stands twice, and the key.
    """

    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    twice: list[tuple[str, str]] = field(default_factory=list)
    cleared: int = 0

    @property
    def count(self) -> int:
        """How many problems there were, those that were cleared among them."""
        return self.cleared + len(self.problems)

    def clear(self) -> None:
        """Forget what is wrong so far but for the number."""
        self.cleared += len(self.problems)
        for found in (self.problems, self.hints, self.twice):
            found.clear()


def read_file(file: Path, shown: str, findings: Findings) -> list[Record]:
    """The records of a file, and what is wrong with it into `findings`; raises `BadRequest` if it cannot be read."""
    return list(records_of(file, shown, findings))


def records_of(file: Path, shown: str, findings: Findings) -> Iterator[Record]:
    """The records of a file one by one, as `read_file` gives them all: a large file is never in memory as a whole."""
    try:
        with file.open("rb") as stream:
            head = stream.read(file_types.HEAD)
            stream.seek(0)
            if not head.startswith(file_types.GZIP):
                if found := _no_rows(head, file, shown):
                    findings.problems.append(f"{shown}: the file is {found.name}")
                    findings.hints.append(found.hint)
                    return
                yield from _read_rows(stream, head, shown, findings)
                return
            if file.name.lower().endswith(PLAIN):
                # Its name says plain text, so every other program would fail on it: renamed once, all can read it.
                findings.problems.append(f"{shown}: the file is compressed with gzip, and its name does not say so")
                findings.hints.append(file_types.unpack(shown))
                return
            yield from _read_gzip(stream, file, shown, findings)
    except OSError as error:
        raise BadRequest(f"cannot read {shown}: {error.strerror or error}") from error


def raw_rows(file: Path, shown: str) -> Iterator[tuple[str, bytes]]:
    """The rows of a file that can be read, each with its name and as one line of bytes; blank lines are left out."""
    with file.open("rb") as plain:
        is_packed = plain.read(2) == file_types.GZIP
    # of a damaged file the rows before the damage can be read
    with gzip.open(file) if is_packed else file.open("rb") as stream, suppress(json_array.BrokenArray, *_DAMAGED):
        head = stream.read(file_types.HEAD)
        stream.seek(0)
        if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            for element in json_array.elements(stream):
                # between the values of JSON a line break is nothing but space
                line = element.text.replace(b"\r", b" ").replace(b"\n", b" ")
                yield f"{shown} row {element.number}", line + b"\n"
            return
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield f"{shown}:{number}", line if line.endswith(b"\n") else line + b"\n"


def _read_gzip(stream: IO[bytes], file: Path, shown: str, findings: Findings) -> Iterator[Record]:
    count = 0
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            head = unpacked.read(file_types.HEAD)
            unpacked.seek(0)
            if found := _no_rows(head, file, shown):
                findings.problems.append(f"{shown}: what gzip unpacks is {found.name}")
                findings.hints.append(file_types.gunzip(shown))
                return
            for record in _read_rows(unpacked, head, shown, findings):
                count += 1  # those before a damage are counted
                yield record
    except _DAMAGED as error:
        findings.problems.append(f"{shown}: the gzip file is damaged or cut off after {count:,} rows ({error})")
        findings.hints.append("copy or download the file again")


def _no_rows(head: bytes, file: Path, shown: str) -> file_types.FileType | None:
    """What a file is that has no rows in it; `head` are its first bytes, unpacked."""
    return file_types.foreign(head, file, shown) or file_types.table(head, shown) or _other_text(head, shown)


def _read_rows(stream: IO[bytes] | gzip.GzipFile, head: bytes, shown: str, findings: Findings) -> Iterator[Record]:
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from _read_array(stream, shown, findings)
        return
    for number, raw in enumerate(stream, 1):
        line = raw.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield from _read_row(line, f"{shown}:{number}", shown, findings)


def _read_array(stream: IO[bytes] | gzip.GzipFile, shown: str, findings: Findings) -> Iterator[Record]:
    try:
        for element in json_array.elements(stream):
            yield from _read_row(element.text, f"{shown} row {element.number}", shown, findings, element.line)
    except json_array.BrokenArray as broken:
        findings.problems.append(f"{shown} row {broken.number}: broken JSON: {broken}")


def _other_text(head: bytes, shown: str) -> file_types.FileType | None:
    """What text is that is neither JSONL nor an array of rows, as far as its first line tells."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.split(b"\n", 1)[0].strip() == b"{":
        source, target = shlex.quote(shown), shlex.quote(f"{Path(shown).with_suffix('')}-rows.jsonl")
        hint = f"`jq -c . {source} > {target}` writes one object per line; where a key holds the rows, `.KEY[]` for `.`"
        return file_types.FileType(name="one JSON object over several lines, not one per line", hint=hint)
    if text and not text.startswith((b"{", b"[")) and not shown.lower().endswith((*PLAIN, *GZIPPED)):
        return file_types.FileType(name="not JSON", hint="write it as JSONL: one JSON object per line")
    return None


def _read_row(raw: bytes, origin: str, shown: str, findings: Findings, first_line: int | None = None) -> list[Record]:
    """The record of one row, or none and its problem; `first_line` is where a row of an array begins in its file."""
    try:
        row, twice = _decode(raw, first_line)
        findings.twice += [(origin, key) for key in twice]
        return [parse(row, origin)]
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02X} at position {error.start + 1}"
        findings.problems.append(f"{origin}: not UTF-8 ({byte}); Latin-1 or Windows-1252, perhaps")
        findings.hints.append(file_types.conversion("WINDOWS-1252", shown))
    except Unusable as unusable:
        findings.problems.append(f"{origin}: {unusable}")
    return []


def _decode(raw: bytes, first_line: int | None) -> tuple[object, list[str]]:
    """A row and the keys that stand twice in one of its objects, of which JSON keeps the last."""
    twice: list[str] = []

    def as_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in found if keys.count(key) > 1)
        return found

    text = raw.decode("utf-8").rstrip("\r\n")
    try:
        row = json.loads(text, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if first_line is None else f"line {first_line + error.lineno - 1:,}"
        raise Unusable(f"broken JSON: {error.msg} ({place})") from None
    except RecursionError:
        raise Unusable("broken JSON: nested too deeply") from None
    except ValueError as error:
        raise Unusable(f"broken JSON: {error}") from None
    if "\\ud" in text.lower() and _has_lone_surrogate(row):
        raise Unusable("broken text: half of a surrogate pair")
    return row, twice


def _has_lone_surrogate(row: object) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
