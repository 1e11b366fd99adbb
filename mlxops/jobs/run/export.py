"""Writing what the registry holds as data: nothing cut, any number of rows in little memory."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import IO, Any

from mlxops import files, registry
from mlxops.config import ExportConfig
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.projects.invocation import Invocation
from mlxops.registry import Registry, TableRows
from mlxops.registry.opening import reading
from mlxops.registry.runs import find_runs

Rows = Sequence[tuple[Any, ...]]
_FORMATS = ("csv", "json", "jsonl", "parquet")


@dataclass(frozen=True, kw_only=True)
class ExportedTable:
    """A file that was written: its table, how many rows, its size in bytes; None of a pipe or device."""

    file: str
    table: str
    rows: int
    bytes: int | None


def export(
    invocation: Invocation, config: ExportConfig, stdout: IO[bytes], *, is_terminal: bool
) -> list[ExportedTable]:
    """Write the rows asked for; returns the files, none where it went to `stdout`.

    A file is whole or absent. Raises `Refused` rather than write over one, `BadRequest` for a format that cannot go
    where it should.
    """
    target = None if config.output is None else invocation.project.cwd / Path(config.output).expanduser()
    form = _format(config, target, is_terminal=is_terminal)
    if target is not None and not config.yes and _is_taken(target):
        raise Refused(f"{config.output!r} is there already", hint="`--yes` replaces it, `--output` names another")
    if form == "parquet":
        _arrow()
    with reading(invocation.project.registry_path) as db:
        runs = find_runs(db, config.run) if config.run else None
        tables = _tables(db, config, None if runs is None else [run["id"] for run in runs])
        if target is None:
            _write_to_stdout(tables, form, stdout, several=config.what == "all")
            return []
        if config.what == "all":
            return _write_folder(tables, form, target)
        return [_write_file(tables[0], form, target)]


def _is_taken(target: Path) -> bool:
    """Whether something would be written over: an empty folder holds nothing, and a pipe or device takes what comes."""
    if target.is_dir():
        return any(target.iterdir())
    return os.path.lexists(target) and not _is_stream(target)


def _is_stream(target: Path) -> bool:
    return target.is_fifo() or target.is_char_device()


def _format(config: ExportConfig, target: Path | None, *, is_terminal: bool) -> str:
    ending = target.suffix.removeprefix(".") if target else ""
    form = config.format or (ending if ending in _FORMATS and config.what != "all" else "csv")
    if target is None and config.json:
        raise BadRequest("--json says what was written to --output", hint="`--format json` writes the rows as JSON")
    if target is None and config.what == "all" and form in ("csv", "parquet"):
        raise BadRequest(f"every table as {form} needs a folder", hint="name one with `--output`, or `--format json`")
    if target is None and form == "parquet" and is_terminal:
        raise BadRequest("parquet is nothing for a terminal", hint="name a file with `--output`")
    return form


def _tables(db: Registry, config: ExportConfig, run_ids: list[int] | None) -> list[TableRows]:
    if config.what == "all":
        return registry.read_tables(db, run_ids)
    if run_ids is None:
        run_ids = [row["id"] for row in registry.candidate_runs(db)][::-1]
    read = registry.read_metrics if config.what == "metrics" else registry.read_runs
    return [read(db, run_ids)]


def _write_to_stdout(tables: Sequence[TableRows], form: str, stdout: IO[bytes], *, several: bool) -> None:
    if several and form == "json":
        stdout.write(b"{")
        for number, table in enumerate(tables):
            stdout.write(f"{',' if number else ''}{json.dumps(table.name)}: ".encode())
            _write(table, form, stdout)
        stdout.write(b"}\n")
    else:
        for table in tables:
            _write(table, form, stdout, named=several)
    stdout.flush()


def _write_folder(tables: Sequence[TableRows], form: str, folder: Path) -> list[ExportedTable]:
    """A file a table, in a folder that is made beside and renamed when all are whole.

    In a folder that is there and has other things in it, the tables are replaced one by one and the others stay.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return [_write_file(table, form, folder / f"{table.name}.{form}") for table in tables]
    beside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        written = [_write_file(table, form, beside / f"{table.name}.{form}") for table in tables]
        with suppress(PermissionError):  # a file system without permissions (FAT) has the same for all
            beside.chmod(0o755)
        beside.replace(folder)
        files.sync(folder.parent)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    except Failed as error:
        # nobody asked for the folder beside
        raise Failed(error.message.replace(str(beside), str(folder)), hint=error.hint) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return [replace(each, file=str(folder / Path(each.file).name)) for each in written]


def _write_file(table: TableRows, form: str, file: Path) -> ExportedTable:
    if _is_stream(file):
        with file.open("wb") as out:
            return ExportedTable(file=str(file), table=table.name, rows=_write(table, form, out), bytes=None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(file) as beside:
            with beside.open("wb") as out:
                count = _write(table, form, out)
            size = beside.stat().st_size
    except OSError as error:
        raise _cannot_write(file, error) from error
    return ExportedTable(file=str(file), table=table.name, rows=count, bytes=size)


def _cannot_write(path: Path, error: OSError) -> Failed:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "make room, or name another `--output`" if is_full else "name another `--output`"
    return Failed(f"{str(path)!r} cannot be written: {error.strerror}", hint=hint)


# the formats --------------------------------------------------------------------------------------------------------


def _write(table: TableRows, form: str, out: IO[bytes], *, named: bool = False) -> int:
    """Write a table; returns how many rows it had. `named` puts the table's name into each line of JSON."""
    pieces = _Counted(table)
    if form == "jsonl":
        first = {"table": table.name} if named else {}
        for row in _objects(table, pieces, first):
            out.write(row + b"\n")
    else:
        _WRITERS[form](table, pieces, out)
    return pieces.count


class _Counted:
    """Pieces of a table's rows whose numbers are finite, and how many rows went through."""

    def __init__(self, table: TableRows) -> None:
        self._table = table
        self.count = 0

    def __iter__(self) -> Iterator[Rows]:
        places = [place for place, (_, kind) in enumerate(self._table.columns) if kind == "REAL"]
        for piece in self._table.pieces:
            self.count += len(piece)
            is_plain = all(row[place] is None or math.isfinite(row[place]) for place in places for row in piece)
            yield piece if is_plain else [tuple(map(_finite, row)) for row in piece]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(table: TableRows, pieces: _Counted, out: IO[bytes]) -> None:
    """CSV in UTF-8 with a line of names: floats as Python writes them, which is exact, NULL as an empty field."""
    for rows in chain([[tuple(name for name, _ in table.columns)]], pieces):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [value.hex() if isinstance(value, bytes) else value for value in row] for row in rows
        )
        out.write(text.getvalue().encode())


def _write_json(table: TableRows, pieces: _Counted, out: IO[bytes]) -> None:
    """One array with an object a row, one row a line."""
    out.write(b"[")
    for number, row in enumerate(_objects(table, pieces, {})):
        out.write((b",\n " if number else b"") + row)
    out.write(b"]\n")


def _objects(table: TableRows, pieces: _Counted, first: dict[str, str]) -> Iterator[bytes]:
    names = [name for name, _ in table.columns]
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=bytes.hex).encode
    for rows in pieces:
        for row in rows:
            yield encode(first | dict(zip(names, row, strict=True))).encode()


def _write_parquet(table: TableRows, pieces: _Counted, out: IO[bytes]) -> None:
    """Parquet with the registry's own types; rows are handed on as they are read."""
    arrow, arrow_io = _arrow()
    types = {
        "INTEGER": arrow.DataType.int64(),
        "REAL": arrow.DataType.float64(),
        "TEXT": arrow.DataType.utf8(),
        "BLOB": arrow.DataType.binary(),
    }
    schema = arrow.Schema([arrow.Field(name, types[kind]) for name, kind in table.columns])

    def batches() -> Iterator[Any]:
        for rows in pieces:
            columns = zip(zip(*rows, strict=True), table.columns, strict=True)
            arrays = [arrow.Array(values, type=types[kind]) for values, (_, kind) in columns]
            yield arrow.RecordBatch.from_arrays(arrays, schema=schema)

    # the writer needs a file that can tell where it is, which a pipe cannot
    with tempfile.TemporaryFile() as whole:
        arrow_io.write_parquet(arrow.RecordBatchReader.from_batches(schema, batches()), whole)
        whole.seek(0)
        shutil.copyfileobj(whole, out)


_WRITERS: dict[str, Callable[[TableRows, _Counted, IO[bytes]], None]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}


def _arrow() -> tuple[Any, Any]:
    """arro3, the Rust implementation of Arrow and Parquet: 12 MB in all, where pyarrow takes 55."""
    try:
        return import_module("arro3.core"), import_module("arro3.io")
    except ImportError:
        raise BadRequest(
            "parquet is written by the library arro3, which is not installed",
            hint="pip install 'mlxops[parquet]' adds it; csv, json and jsonl need nothing more",
        ) from None
