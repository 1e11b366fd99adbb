"""Rows as data for other programs: nothing cut, floats with all the digits that make them the same float again."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from mlxops import words

Values = Sequence[Sequence[Any]]


def csv_text(columns: Sequence[str], rows: Values) -> str:
    """CSV with a line of names; NULL is an empty field, bytes are hexadecimal."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([value.hex() if isinstance(value, bytes) else value for value in row] for row in rows)
    return written.getvalue()


def json_rows(columns: Sequence[str], rows: Values) -> str:
    """A JSON array with one object a row, one row a line."""
    return "[" + ",\n ".join(_objects(columns, rows)) + "]\n"


def json_lines(columns: Sequence[str], rows: Values) -> str:
    """One JSON object a line."""
    return "".join(f"{each}\n" for each in _objects(columns, rows))


def markdown(columns: Sequence[str], rows: Values) -> str:
    """A table in Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    body = (line(repr(value) if isinstance(value, float) else words.visible(value) for value in row) for row in rows)
    return line(columns) + line("---" for _ in columns) + "".join(body)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that any reader takes: what is not finite becomes null, what JSON has no type for its text.

    >>> json_text({"loss": float("nan"), "ratio": 0.1})
    '{"loss": null, "ratio": 0.1}'
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def ascii_json(text: str) -> str:
    """The same JSON in ASCII.

    >>> ascii_json('{"name": "grün"}')
    '{"name": "gr\\\\u00fcn"}'
    """
    # Outside its strings JSON is ASCII already, and inside them an escape is the same letter.
    return "".join(each if each.isascii() else json.dumps(each)[1:-1] for each in text)


WRITERS = {"csv": csv_text, "json": json_rows, "jsonl": json_lines, "md": markdown}


def _objects(columns: Sequence[str], rows: Values) -> list[str]:
    names = _different(columns)
    return [json_text(dict(zip(names, row, strict=True))) for row in rows]


def _different(columns: Sequence[str]) -> list[str]:
    """The names, numbered where several are the same: an object would keep only the last of them."""
    names: list[str] = []
    for name in columns:
        number, free = 2, name
        while free in names:
            free, number = f"{name}_{number}", number + 1
        names.append(free)
    return names


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, (str, int)) else str(value)
