"""Layers of points in one frame of characters, drawn by raster.py: they are told apart without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.text import Text

from mlxops.ui.charts import raster, scales
from mlxops.ui.charts.raster import Frame, Point

LINE = ""
"""The mark of a layer whose points are joined."""

_FRAME = str.maketrans("┌┐└┘─│┊", "++++-|:")
_FARTHEST = 1e100  # beyond what a loss can be, and its square is still a number
_EVERY = 16  # columns between two letters on a line


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Points by iteration, their style, and the character that stands for each; LINE joins them.

    A `letter` is written on the line every few columns; `plain` is the line's character where there is only ASCII.
    """

    points: Sequence[Point]
    style: str
    mark: str = LINE
    letter: str = ""
    plain: str = "."


def draw(
    layers: Sequence[Layer],
    width: int,
    height: int,
    *,
    unicode: bool,
    log: bool = False,
    first: float | None = None,
    above: Mapping[float, str] | None = None,
    below: Mapping[float, str] | None = None,
    upright: Iterable[float] = (),
    labels: bool = True,
    whole: bool = False,
) -> list[Text]:
    """The layers in one frame of `height` lines of points, the later above the earlier ones, three lines more in all.

    The iterations begin at `first`, or where that is None at 0, or, where the early half is empty, at the first of
    them; `whole` numbers they have no labels between. `above` and `below` are characters on the frame by iteration,
    `upright` iterations with a line through the empty part of the plot. Without `labels` there are no scales. The
    scale is logarithmic only where every value is above zero.
    """
    layers = [layer for layer in layers if any(math.isfinite(value) for _, value in layer.points)]
    frame = _frame(layers, log, first)
    beside = scales.beside(frame.y_min, frame.y_max, height, log=frame.is_log) if labels else [""] * height
    widest = max(map(len, beside))
    inside = width - 2 - (widest + 1 if widest else 0)
    cells = [[" "] * inside for _ in range(height)]
    styles = [[""] * inside for _ in range(height)]
    for layer in layers:
        _lay_over(layer, _draw(layer, inside, height, unicode, frame), cells, styles)
        _write_letters(layer, cells, styles)
    place = _places(frame.x_min, frame.x_max, inside)
    for column in filter(None, map(place, upright)):
        for row in cells:
            row[column] = "┊" if row[column] == " " else row[column]
    line = "─" * inside
    top = _marked(f"┌{line}┐", {place(each): mark for each, mark in (above or {}).items()})
    bottom = _marked(f"└{line}┘", {place(each): mark for each, mark in (below or {}).items()})
    body = [_row(*row) for row in zip(cells, styles, beside, strict=True)]
    lines = [Text(top), *body, Text(bottom)]
    if labels:
        lines.append(Text(scales.below(frame.x_min, frame.x_max, inside, whole=whole)))
    return lines if unicode else [_in_ascii(line) for line in lines]


def thin(points: Sequence[Point], buckets: int) -> list[Point]:
    """The points, or the lowest and the highest of each bucket of neighbours, so that a spike survives."""
    if len(points) <= 2 * buckets:
        return list(points)
    kept: list[Point] = []
    for index in range(buckets):
        bucket = points[index * len(points) // buckets : (index + 1) * len(points) // buckets]
        finite = [point for point in bucket if math.isfinite(point[1])]
        if not finite:
            kept.append(bucket[0])
            continue
        kept.extend(sorted({min(finite, key=_value), max(finite, key=_value)}))
    return kept


def drawable(value: float | None) -> float:
    """The value, NaN where it is none; what cannot be computed with counts as the farthest that can, or as zero."""
    if value is None or not math.isfinite(value):
        return math.nan
    return min(max(value, -_FARTHEST), _FARTHEST) if abs(value) > 1 / _FARTHEST else 0.0


def _value(point: Point) -> float:
    return point[1]


def _frame(layers: Sequence[Layer], log: bool, first: float | None) -> Frame:
    values = [value for layer in layers for _, value in layer.points if math.isfinite(value)]
    iterations = [iteration for layer in layers for iteration, _ in layer.points]
    is_log = log and min(values) > 0
    lowest, highest = _bounds(values, is_log)
    last = max(iterations)
    if first is None:
        first = min(iterations) if min(iterations) > 0.5 * last and len(set(iterations)) > 1 else 0
    return Frame(x_min=first, x_max=last if last > first else first + 1, y_min=lowest, y_max=highest, is_log=is_log)


def _bounds(values: Sequence[float], is_log: bool) -> tuple[float, float]:
    lowest, highest = min(values), max(values)
    if is_log:
        factor = (highest / lowest) ** 0.03 if highest / lowest > 1 + 1e-6 else 1.1
        return lowest / factor, highest * factor
    reach = max(abs(lowest), abs(highest)) or 1.0
    margin = (highest - lowest) * 0.03 if highest - lowest > reach * 1e-6 else reach * 0.1
    return lowest - margin, highest + margin


def _draw(layer: Layer, width: int, height: int, unicode: bool, frame: Frame) -> list[str]:
    is_line = layer.mark == LINE
    points = thin(layer.points, width)
    if is_line and unicode:
        return raster.braille(points, frame, width, height)
    return raster.marks(points, frame, width, height, layer.plain if is_line else layer.mark, joined=is_line)


def _lay_over(layer: Layer, rows: Sequence[str], cells: list[list[str]], styles: list[list[str]]) -> None:
    for row, texts in enumerate(rows):
        for column, character in enumerate(texts):
            if character == " ":
                continue
            lower = cells[row][column]
            both = _is_braille(character) and _is_braille(lower)
            cells[row][column] = chr(ord(character) | ord(lower)) if both else character
            styles[row][column] = layer.style


def _write_letters(layer: Layer, cells: list[list[str]], styles: list[list[str]]) -> None:
    """The letter on the line in every so many columns, in a cell that is this layer's."""
    if not layer.letter:
        return
    columns = range(len(cells[0]) - 1, -1, -1)
    free = 0
    for column in columns:
        rows = [row for row, line in enumerate(styles) if line[column] == layer.style and cells[row][column] != " "]
        if free > 0 or not rows:
            free -= 1
            continue
        cells[rows[len(rows) // 2]][column] = layer.letter
        free = _EVERY


def _is_braille(character: str) -> bool:
    return "⠀" <= character <= "⣿"


def _places(first: float, last: float, width: int) -> Any:
    def place(iteration: float) -> int | None:
        """The column of an iteration, None where it is not on the plot."""
        if not first <= iteration <= last:
            return None
        return min(int((iteration - first) / (last - first) * width), width - 1)

    return place


def _marked(frame: str, marks: Mapping[int | None, str]) -> str:
    cells = list(frame)
    for column, mark in marks.items():
        if column is not None:
            cells[column + 1] = mark
    return "".join(cells)


def _row(cells: Sequence[str], styles: Sequence[str], label: str) -> Text:
    # One span a stretch of equal style, not one a character: Rich's time goes by spans.
    stretches = [
        ("".join(cell for cell, _ in stretch), style)
        for style, stretch in groupby(zip(cells, styles, strict=True), key=lambda pair: pair[1])
    ]
    return Text.assemble("│", *stretches, f"│ {label}" if label else "│")


def _in_ascii(line: Text) -> Text:
    line.plain = line.plain.translate(_FRAME)
    return line
