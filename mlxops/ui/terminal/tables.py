"""Rows as tables, facts or JSON, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from mlxops import words
from mlxops.ui.terminal import exact, lines
from mlxops.ui.terminal.console import is_unicode

Format = Literal["table", "csv", "json", "jsonl", "md"]
SPACE = 2  # between two columns
_NAMES = frozenset({"name", "run", "parent"})  # columns of names that have their beginning in common
_BETWEEN = Segment(" " * SPACE)
_NARROWEST = 6  # columns of a table that would have to be narrower become lines of their own


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], console: Console, format: Format = "table") -> None:
    """Rows as a table that fits the terminal, or exactly as data: floats with all their digits, nothing cut.

    Where the columns do not fit side by side each row becomes lines of its own.
    """
    values = [list(row) for row in rows]
    if format == "table":
        print_table(columns, values, console)
    else:
        _write(exact.WRITERS[format](columns, values), console, is_json=format in ("json", "jsonl"))


def facts(title: str, pairs: Sequence[tuple[str, str]], notes: Sequence[str], console: Console) -> None:
    """A title, labels with their values, and sentences below."""
    console.print(heading(title), soft_wrap=not console.is_terminal)
    label_width = max((cell_len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        # Long values continue below themselves; in a pipe each stays on its line.
        start = Text().append(set_cell_size(label, label_width + SPACE), "dim")
        room = max(console.width - label_width - SPACE, 20)
        folded = Text(value).wrap(console, room, overflow="fold") if console.is_terminal else [Text(value)]
        for part in folded or [Text()]:
            console.print(start.append_text(part), soft_wrap=True)
            start = Text(" " * (label_width + SPACE))
    for note in notes:
        console.print(note, soft_wrap=not console.is_terminal)


def json_out(value: Any, console: Console) -> None:
    """A value as JSON that any reader takes: what is not finite becomes null."""
    _write(exact.json_text(value, indent=2) + "\n", console, is_json=True)


def heading(text: str) -> Text:
    return Text(text, style="bold")


class Column(NamedTuple):
    """A column of a table: numbers stand to the right."""

    name: str
    width: int
    is_number: bool


def print_columns(columns: Sequence[Column], rows: Iterable[Sequence[tuple[str, str]]], console: Console) -> None:
    """Cells, each a text with its style, under the names of their columns; a text that is too long is cut.

    Rich's Table takes as long for some hundred rows as the rest of a command.
    """
    total = sum(column.width + SPACE for column in columns) - SPACE
    names = [(column.name, "bold") for column in columns]
    segments = [*_line(columns, names, console), Segment("─" * total), Segment.line()]
    for row in rows:
        segments += _line(columns, row, console)
    console.print(Segments(segments), end="")


def _line(columns: Sequence[Column], cells: Sequence[tuple[str, str]], console: Console) -> Iterator[Segment]:
    for number, (column, (text, style)) in enumerate(zip(columns, cells, strict=True)):
        if number:
            yield _BETWEEN
        length = cell_len(text)
        if length > column.width:
            text = set_cell_size(text, column.width - 1) + "…"
        else:
            space = " " * (column.width - length)
            text = space + text if column.is_number else text + space
        yield Segment(text, console.get_style(style) if style else None)
    yield Segment.line()


def shortened(name: str, width: int) -> str:
    """A name in so many columns: of a long one the beginning and more of the end, which tells it from others.

    >>> shortened("smollm2-135m-sandy-crane", 16), shortened("tiny", 16)
    ('smoll…andy-crane', 'tiny')
    """
    if cell_len(name) <= width:
        return name
    head, tail = name[: max(width // 3, 1)], ""
    for letter in reversed(name[len(head) :]):
        if cell_len(head + letter + tail) >= width:
            break
        tail = letter + tail
    return f"{head}…{tail}"


def _fitted(widths: Sequence[int], room: int) -> list[int]:
    """The widths, the widest of them cut to one limit until all fit: Rich would take from each, short ones too."""
    limit = min(max(widths, default=0), room)
    while limit > 1 and sum(min(width, limit) + SPACE for width in widths) - SPACE > room:
        limit -= 1
    return [min(width, limit) for width in widths]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(cell_len(name), *(cell_len(row[index]) for row in cells)) if cells else cell_len(name)
        for index, name in enumerate(columns)
    ]
    if sum(min(width, _NARROWEST) + SPACE for width in widths) - SPACE > console.width:
        _print_records(columns, cells, console)
        return
    fitted = [
        Column(name, width, any(isinstance(row[index], (int, float)) for row in rows))
        for index, (name, width) in enumerate(zip(columns, _fitted(widths, console.width), strict=True))
    ]
    styled = (
        [
            (shortened(text, column.width) if column.name in _NAMES else text, "dim" if value is None else "")
            for column, text, value in zip(fitted, row, values, strict=True)
        ]
        for row, values in zip(cells, rows, strict=True)
    )
    print_columns(fitted, styled, console)


def _print_records(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    label_width = max(map(cell_len, columns))
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, text in zip(columns, row, strict=True):
            console.print(lines.line(f"{name:>{label_width}}", "dim").append(f"  {text}", "none"))


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else words.visible(value)


def _write(text: str, console: Console, *, is_json: bool) -> None:
    """Past Rich, which would expand tabs and fold lines; escaped where the stream's encoding lacks a character."""
    if is_json and not is_unicode(console):
        text = exact.ascii_json(text)
    encoding = console.encoding
    console.file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    console.file.flush()
