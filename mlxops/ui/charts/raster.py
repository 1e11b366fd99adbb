"""Points and lines as characters: braille has two by four dots in a cell, anything else one mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]

_DOTS = (0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)  # bits of U+2800 by row and column in a cell
_EMPTY = 0x2800


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a plot shows: its bounds, and whether the values are on a logarithmic scale. The bounds differ."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    is_log: bool = False


def braille(points: Sequence[Point], frame: Frame, width: int, height: int) -> list[str]:
    """The line through the points, in `height` rows of `width` characters; a value that is not finite is a gap."""
    cells = [[0] * width for _ in range(height)]
    for column, row in _line(points, frame, 2 * width, 4 * height):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    return ["".join(chr(_EMPTY + cell) if cell else " " for cell in row) for row in cells]


def marks(points: Sequence[Point], frame: Frame, width: int, height: int, mark: str, *, joined: bool) -> list[str]:
    """The points, or the line through them, as one mark for each cell."""
    cells = [[" "] * width for _ in range(height)]
    for column, row in (_line if joined else _dots)(points, frame, width, height):
        cells[row][column] = mark
    return ["".join(row) for row in cells]


def _dots(points: Sequence[Point], frame: Frame, columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """The column and row of each point that is on the plot."""
    place = _placing(frame, columns, rows)
    for x, y in points:
        if math.isfinite(y) and frame.x_min <= x <= frame.x_max:
            yield _dot(*place(x, y), columns, rows)


def _line(points: Sequence[Point], frame: Frame, columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """The column and row of each dot on the line between neighbours, as far as it is on the plot."""
    yield from _dots(points, frame, columns, rows)
    place = _placing(frame, columns, rows)
    for (x, y), (next_x, next_y) in pairwise(points):
        if not (math.isfinite(y) and math.isfinite(next_y)) or next_x < frame.x_min or x > frame.x_max:
            continue
        start, end = place(x, y), place(next_x, next_y)
        across, up = end[0] - start[0], end[1] - start[1]
        # only what is inside: a zoom may leave most of a long step outside
        first = max(0.0, -start[0] / across) if across else 0.0
        last = min(1.0, (columns - start[0]) / across) if across else 1.0
        steps = math.ceil(max(abs(across), abs(up)) * (last - first))
        for step in range(steps):
            share = first + (last - first) * (step + 0.5) / steps
            yield _dot(start[0] + share * across, start[1] + share * up, columns, rows)


def _placing(frame: Frame, columns: int, rows: int) -> Callable[[float, float], tuple[float, float]]:
    scale = math.log10 if frame.is_log else float
    lowest, highest = scale(frame.y_min), scale(frame.y_max)

    def place(x: float, y: float) -> tuple[float, float]:
        """Where a point is, in dots from the upper left corner."""
        across = (x - frame.x_min) / (frame.x_max - frame.x_min)
        down = (highest - scale(y)) / (highest - lowest)
        return across * columns, down * rows

    return place


def _dot(across: float, down: float, columns: int, rows: int) -> tuple[int, int]:
    return min(max(int(across), 0), columns - 1), min(max(int(down), 0), rows - 1)
