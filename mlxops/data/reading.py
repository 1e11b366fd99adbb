"""Data files into records: which files there are, their lines, and every problem of every line.

Files are read line by line and never written. How a file without a validation file is divided is in `splitting`.
"""

from __future__ import annotations

import codecs
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlxops.data.formats import FORMATS, Record, Unusable, parse
from mlxops.data.splitting import VALID_SHARE, divide
from mlxops.errors import BadRequest, InvalidData, NotFound

_SUFFIXES = (".jsonl", ".ndjson")
_FOREIGN_SUFFIXES = (".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", ".xlsx", ".gz", ".zst")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The records of a data set by their use, the files they came from, and what a person should know of them."""

    train: tuple[Record, ...]
    valid: tuple[Record, ...]
    test: tuple[Record, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass
class _Findings:
    """What is wrong so far: `problems` for people to look up, `hints` of which the first is shown."""

    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def read(path: Path, *, root: Path | None = None, split_seed: int = 0) -> Splits:
    """All records of a JSONL file, or of a folder with train.jsonl and, if there, valid.jsonl and test.jsonl.

    Without a validation file the training rows are divided by the rule of `splitting.divide`. Origins (`file:line`)
    are relative to `root` where the file is inside it. Raises `NotFound`, or one `InvalidData` with the problems of
    all rows of all files.
    """
    files = _find(path, root)
    findings = _Findings()
    rows = {use: _read_file(file, _shown(file, root), findings) for use, file in files.items()}
    if findings.problems:
        count = len(findings.problems)
        message = f"{_shown(path, root)} cannot be used: {count:,} {'problem' if count == 1 else 'problems'}"
        raise InvalidData(message, findings.problems, hint=next(iter(findings.hints), f"a row is {FORMATS}"))
    if not rows["train"]:
        raise InvalidData(f"{_shown(files['train'], root)} has no rows", hint=f"a row is {FORMATS}")

    notes = []
    train, valid, test = rows["train"], rows.get("valid", []), rows.get("test", [])
    if valid:
        notes += _repeated(train, valid, _shown(files["valid"], root))
    else:
        train, valid = divide(train, seed=split_seed)
        notes += _other_name(path, root)
        notes.append(_division(train, valid, files, root))
    if test:
        notes += _repeated(train, test, _shown(files["test"], root))
    return Splits(
        train=tuple(train), valid=tuple(valid), test=tuple(test), files=tuple(files.values()), notes=tuple(notes)
    )


def _other_name(path: Path, root: Path | None) -> list[str]:
    """A note where validation rows may be there under a name that is not read."""
    other = path / "validation.jsonl"
    return [f"{_shown(other, root)} is not read: call it valid.jsonl"] if path.is_dir() and other.is_file() else []


def _division(train: list[Record], valid: list[Record], files: dict[str, Path], root: Path | None) -> str:
    missing = f"{_shown(files['valid'], root)} is empty" if "valid" in files else "no validation file"
    if not valid:
        return f"{missing}, and too few different rows to keep any back: no validation"
    rows = f"{len(valid):,} of {len(train) + len(valid):,} rows"
    return f"{missing}: {rows} kept back for validation (about {VALID_SHARE:.0%}, chosen by their content)"


def _repeated(train: list[Record], other: list[Record], shown: str) -> list[str]:
    known = {record.content for record in train}
    count = sum(record.content in known for record in other)
    return [f"{count:,} of {len(other):,} rows of {shown} are training rows too"] if count else []


def _find(path: Path, root: Path | None) -> dict[str, Path]:
    """The files to read by use, `train` first."""
    if path.is_dir():
        there = {use: path / f"{use}.jsonl" for use in ("train", "valid", "test")}
        if not there["train"].is_file():
            raise NotFound(f"no train.jsonl in {_shown(path, root)}", hint=_what_is_there(path, root))
        return {use: file for use, file in there.items() if file.is_file()}
    if not path.is_file():
        raise NotFound(f"no data at {_shown(path, root)}", hint=_what_is_there(path.parent, root))
    if path.suffix.lower() not in _SUFFIXES:
        raise InvalidData(f"{_shown(path, root)} is not JSONL", hint="write it as JSONL: one object a line")
    return {"train": path}


def _what_is_there(folder: Path, root: Path | None) -> str:
    """A hint that names the data near a folder that lacks what was asked for."""
    near = [
        file
        for pattern in ("*", "*/*")
        for file in sorted(folder.glob(pattern))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    rows = [_shown(file, root) for file in near if file.suffix.lower() in _SUFFIXES]
    if rows:
        return f"there is {', '.join(rows[:5])}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''}"
    foreign = [_shown(file, root) for file in near if file.suffix.lower() in _FOREIGN_SUFFIXES]
    if foreign:
        return f"there is {foreign[0]}; write it as JSONL: one object a line"
    return "--data takes a JSONL file, or a folder with train.jsonl"


def _read_file(file: Path, shown: str, findings: _Findings) -> list[Record]:
    try:
        with file.open("rb") as stream:
            return list(_read_lines(stream, shown, findings))
    except OSError as error:
        raise BadRequest(f"cannot read {shown}: {error.strerror}") from error


def _read_lines(stream: Iterator[bytes], shown: str, findings: _Findings) -> Iterator[Record]:
    is_first = True
    for number, line in enumerate(stream, 1):
        line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        origin = f"{shown}:{number}"
        if is_first and (found := _other_file_type(line, shown)):
            reason, hint = found
            findings.problems.append(f"{origin}: {reason}")
            findings.hints.append(hint)
            return
        is_first = False
        try:
            yield parse(_decode(line), origin)
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02X} at position {error.start + 1}"
            findings.problems.append(f"{origin}: not UTF-8 ({byte}); Latin-1 or Windows-1252, perhaps")
            findings.hints.append(_conversion("WINDOWS-1252", shown))
        except Unusable as unusable:
            findings.problems.append(f"{origin}: {unusable}")


def _other_file_type(line: bytes, shown: str) -> tuple[str, str] | None:
    """What a file is that is not JSONL, by its first line, and the hint for it."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if line.startswith(mark):
            return f"the file is {encoding}, not UTF-8", _conversion(encoding, shown)
    if b"\0" in line[:4]:  # JSON begins with an ASCII character, so this is a wide encoding without a mark
        encoding = ("UTF-32" if b"\0\0" in line[:4] else "UTF-16") + ("BE" if line.startswith(b"\0") else "LE")
        return f"the file is {encoding}, not UTF-8", _conversion(encoding, shown)
    if line.lstrip().startswith(b"[") or line.strip() == b"{":
        return "the file is one JSON value, not one object a line", "write it as JSONL: one object a line"
    return None


def _conversion(encoding: str, shown: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(shown)} > utf-8.jsonl"


def _decode(line: bytes) -> object:
    text = line.decode("utf-8").rstrip("\r\n")
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unusable(f"broken JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise Unusable("broken JSON: nested too deeply") from None
    except ValueError as error:
        raise Unusable(f"broken JSON: {error}") from None
    if "\\ud" in text.lower() and _has_lone_surrogate(row):
        raise Unusable("broken text: half of a surrogate pair")
    return row


def _has_lone_surrogate(row: object) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _shown(path: Path, root: Path | None) -> str:
    if root is not None and path.absolute().is_relative_to(root.absolute()):
        return str(path.absolute().relative_to(root.absolute()))
    return str(path)
