"""Data files into records: which files there are, their rows, and every problem of every row.

Files are read row by row and never written. How a file without a validation file is divided is in `splitting`, what a
file is that has no rows in `file_types`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mlxops import words
from mlxops.data import file_types
from mlxops.data.file_rows import GZIPPED, PLAIN, Findings, read_file
from mlxops.data.formats import FORMATS, Record
from mlxops.data.splitting import VALID_SHARE, divide
from mlxops.errors import InvalidData, NotFound

Use = Literal["train", "valid", "test"]

_USES: tuple[Use, ...] = ("train", "valid", "test")
_ENDINGS = (*PLAIN, *GZIPPED)  # the first of them is read, which is what `mlx_lm.lora` reads
_FOREIGN_SUFFIXES = (
    *(".csv", ".tsv", ".parquet", ".arrow", ".feather", ".db", ".sqlite", ".sqlite3", ".txt", ".md", ".yaml", ".xlsx"),
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".7z"),
)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The records of a data set by their use, the files they came from, and what a person should know of them.

    `valid_file` is where the validation rows stand: the file of the training rows where they were kept back.
    """

    train: tuple[Record, ...]
    valid: tuple[Record, ...]
    test: tuple[Record, ...]
    files: tuple[Path, ...]
    valid_file: Path
    notes: tuple[str, ...]


def read(
    path: Path, *, root: Path | None = None, split_seed: int = 0, needed: Sequence[Use] = ("train", "valid", "test")
) -> Splits:
    """All records of a file, or of a folder with train.jsonl and, if there, valid.jsonl and test.jsonl.

    A file holds JSONL or one JSON array of rows, compressed with gzip or not. Without a validation file the training
    rows are divided by the rule of `splitting.divide`. Origins (`file:line`, in an array `file row 7`) are relative to
    `root` where the file is inside it. Problems of files that are not `needed` are notes. Raises `NotFound`, or one
    `InvalidData` with the problems of all rows of all needed files.
    """
    files = _find(path, root)
    rows: dict[Use, list[Record]] = {}
    all_findings = {use: Findings() for use in files}
    for use, file in files.items():
        rows[use] = read_file(file, _shown(file, root), all_findings[use])
    _check(path, root, [all_findings[use] for use in files if use in needed])
    if not rows["train"]:
        raise InvalidData(f"{_shown(files['train'], root)} has no rows", hint=f"a row is {FORMATS}")

    notes = _not_read(path, files, root)
    for use, file in files.items():
        notes += _of_no_use(use, _shown(file, root), all_findings[use]) if use not in needed else []
        notes += _keys_twice(_shown(file, root), all_findings[use])
        notes += _duplicates(rows[use], _shown(file, root))
    train, valid, test = rows["train"], rows.get("valid", []), rows.get("test", [])
    valid_file = files["valid"] if valid else files["train"]
    if valid:
        notes += _repeated(train, valid, _shown(files["valid"], root))
    elif not ("valid" in files and all_findings["valid"].problems):
        train, valid = divide(train, seed=split_seed)
        notes.append(_division(train, valid, files, root))
    if test:
        notes += _repeated(train, test, _shown(files["test"], root))
    return Splits(
        train=tuple(train),
        valid=tuple(valid),
        test=tuple(test),
        files=tuple(files.values()),
        valid_file=valid_file,
        notes=tuple(notes),
    )


def files_of(path: Path, *, root: Path | None = None) -> list[tuple[Use, Path, str]]:
    """The files that `read` reads: the use of each, its place, and its path as people are told it."""
    return [(use, file, _shown(file, root)) for use, file in _find(path, root).items()]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Records to test a model on, the file they stand in, and what a person should know of them."""

    records: tuple[Record, ...]
    file: Path
    notes: tuple[str, ...]


def read_held_out(path: Path, *, root: Path | None = None, only_kept_back: bool = False) -> HeldOut:
    """The records to test on: all of a file; of a folder test.jsonl, else valid.jsonl, else some of train.jsonl.

    Those of train.jsonl are the rows that a training keeps back for validation.
    `only_kept_back` takes of a file only the rows that a training on it keeps back for validation. Raises as `read`
    does, and `InvalidData` where no rows are left.
    """
    there: dict[Use, Path] = {"train": path}
    if path.is_dir():
        there = {use: found[0] for use in _USES if (found := _named(path, use))}
    use: Use = "test" if "test" in there else "valid" if "valid" in there else "train"
    if there and "train" not in there:
        alone = read_held_out(there[use], root=root)
        return replace(alone, notes=(*alone.notes, f"tested on {there[use].name}"))
    if path.is_file() and not only_kept_back:
        findings = Findings()
        records = read_file(path, _shown(path, root), findings)
        _check(path, root, [findings])
        notes = [*_keys_twice(_shown(path, root), findings), *_duplicates(records, _shown(path, root))]
        return _held_out(records, path, root, notes)
    splits = read(path, root=root, needed=(use,))
    chosen = splits.test if use == "test" else splits.valid
    file = there[use]
    note = f"tested on {file.name}" if use != "train" else f"tested on the rows of {file.name} kept back for validation"
    return _held_out(chosen, file, root, [*splits.notes, note])


def _held_out(records: Sequence[Record], file: Path, root: Path | None, notes: Sequence[str]) -> HeldOut:
    if not records:
        raise InvalidData(
            f"{_shown(file, root)} has no rows to test on", hint="name a file to test on all of its rows: `--data FILE`"
        )
    return HeldOut(records=tuple(records), file=file, notes=tuple(notes))


def _check(path: Path, root: Path | None, all_findings: list[Findings]) -> None:
    problems = [problem for findings in all_findings for problem in findings.problems]
    hints = [hint for findings in all_findings for hint in findings.hints]
    if problems:
        count = len(problems)
        message = f"{_shown(path, root)} cannot be used: {count:,} {'problem' if count == 1 else 'problems'}"
        raise InvalidData(message, problems, hint=next(iter(hints), f"a row is {FORMATS}"))


def _not_read(path: Path, files: dict[Use, Path], root: Path | None) -> list[str]:
    """Notes on files of a folder that look like rows to train or validate on and are not read."""
    if not path.is_dir():
        return []
    notes = []
    if "valid" not in files and (other := _named(path, "validation")):
        notes.append(f"{_shown(other[0], root)} is not read: call it valid{other[0].name.removeprefix('validation')}")
    for use, file in files.items():
        for other_file in _named(path, use):
            if other_file != file:
                notes.append(f"{_shown(other_file, root)} is not read: {file.name} is")
    return notes


def _of_no_use(use: Use, shown: str, findings: Findings) -> list[str]:
    if not findings.problems:
        return []
    count = len(findings.problems)
    what = f"{count:,} {'problem' if count == 1 else 'problems'}, first {findings.problems[0]}"
    return [f"{shown} has {what}; its rows are not needed here"]


def _keys_twice(shown: str, findings: Findings) -> list[str]:
    if not findings.twice:
        return []
    origin, key = findings.twice[0]
    count = len({origin for origin, _ in findings.twice})
    rows = "1 row has" if count == 1 else f"{count:,} rows have"
    return [f"{shown}: {rows} a key twice, first {origin} ({key!r}): the last value counts"]


def _duplicates(records: list[Record], shown: str) -> list[str]:
    first: dict[bytes, Record] = {}
    count = 0
    example: Record | None = None
    for record in records:
        if first.setdefault(_digest(record), record) is not record:
            count += 1
            example = example or record
    if example is None:
        return []
    rows = "1 row repeats an earlier one" if count == 1 else f"{count:,} rows repeat earlier ones"
    return [f"{shown}: {rows} of {len(records):,}, first {example.origin} (as {first[_digest(example)].origin})"]


def _digest(record: Record) -> bytes:
    """A row's content in 16 bytes: a hundred thousand rows are compared without being held twice."""
    return hashlib.blake2b(record.content.encode(), digest_size=16).digest()


def _division(train: list[Record], valid: list[Record], files: dict[Use, Path], root: Path | None) -> str:
    missing = f"{_shown(files['valid'], root)} is empty" if "valid" in files else "no validation file"
    if not valid:
        return f"{missing}, and too few different rows to keep any back: no validation"
    rows = f"{len(valid):,} of {len(train) + len(valid):,} rows"
    return f"{missing}: {rows} kept back for validation (about {VALID_SHARE:.0%}, chosen by their content)"


def _repeated(train: list[Record], other: list[Record], shown: str) -> list[str]:
    known = {_digest(record) for record in train}
    count = sum(_digest(record) in known for record in other)
    return [f"{count:,} of {len(other):,} rows of {shown} are training rows too"] if count else []


def _find(path: Path, root: Path | None) -> dict[Use, Path]:
    """The files to read by use, `train` first."""
    if path.is_dir():
        there = {use: found[0] for use in _USES if (found := _named(path, use))}
        if "train" not in there:
            raise NotFound(f"no train.jsonl in {_shown(path, root)}", hint=_what_is_there(path, root))
        return there
    if path.is_symlink() and not path.exists():
        raise NotFound(
            f"{_shown(path, root)} is a link to {str(path.readlink())!r}, which is not there",
            hint="put the file there, or name the file itself",
        )
    if not path.is_file():
        raise NotFound(f"no data at {_shown(path, root)}", hint=_what_is_there(path.parent, root))
    return {"train": path}


def _named(folder: Path, stem: str) -> list[Path]:
    """The files of a folder that may hold the rows of one use, the one that is read first."""
    return [file for ending in _ENDINGS if (file := folder / f"{stem}{ending}").is_file()]


def _what_is_there(folder: Path, root: Path | None) -> str:
    """A hint that names the data near a folder that lacks what was asked for."""
    near = [
        file
        for pattern in ("*", "*/*")
        for file in sorted(folder.glob(pattern))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    rows = [_shown(file, root) for file in near if file.name.lower().endswith((".jsonl", ".ndjson", *GZIPPED))]
    if rows:
        return f"there is {words.listed(rows, 5)}"
    for file in near:
        if file.suffix.lower() in _FOREIGN_SUFFIXES:
            return f"there is {_shown(file, root)}; {_to_jsonl(file, _shown(file, root))}"
    return "name a JSONL file, or a folder with train.jsonl"


def _to_jsonl(file: Path, shown: str) -> str:
    """The hint that makes rows of a file of another kind."""
    try:
        with file.open("rb") as stream:
            head = stream.read(file_types.HEAD)
    except OSError:
        head = b""
    found = file_types.foreign(head, file, shown) or file_types.table(head, shown)
    return found.hint if found else "write it as JSONL: one JSON object per line"


def _shown(path: Path, root: Path | None) -> str:
    if root is not None and path.absolute().is_relative_to(root.absolute()):
        return str(path.absolute().relative_to(root.absolute()))
    return str(path)
