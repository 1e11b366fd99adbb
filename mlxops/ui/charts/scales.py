"""The numbers beside and below a chart: round ones, each exactly the value of the place where it stands."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal
from itertools import count, takewhile

_ROWS_APART = (3.0, 2.0, 1.0, 0.5, 0.25)
"""The first of these that gives two numbers is taken; below one, several fall on a row and the lowest is kept."""

_COLUMNS_APART = 9


def beside(lowest: float, highest: float, rows: int, *, log: bool = False) -> list[str]:
    """The number of each row from the top, most of them empty; the plot reaches from `lowest` to `highest`.

    >>> beside(0.9, 4.1, 6)
    ['4', '', '', '2', '', '']
    """
    texts = [""] * rows
    chosen = _chosen(lowest, highest, rows, log)
    # powers of ten have no places in common
    for value, text in [pair for each in chosen for pair in _written([each])] if log else _written(chosen):
        row = rows - 1 - _place(value, lowest, highest, rows, log)
        texts[row] = texts[row] or text
    return texts


def below(first: float, last: float, columns: int, *, whole: bool = False) -> str:
    """The line below the frame of a plot that reaches from `first` to `last`; `whole` are numbers like iterations.

    >>> below(0, 30, 36, whole=True)
    ' 0          10          20         30'
    """
    widest = max(len(f"{int(each):,}") for each in (first, last))
    apart = (last - first) / columns * max(_COLUMNS_APART, widest + 3)
    values = _multiples(first, last, apart, whole=whole)
    if len(values) < 2:
        values = _multiples(first, last, apart / 2, whole=whole)
    line = ""
    for value, text in [(each, f"{int(each):,}") for each in values] if whole else _written(values):
        column = 1 + _place(value, first, last, columns, False)
        start = max(min(column - len(text) // 2, columns + 2 - len(text)), 0)
        if not line or start > len(line):
            line = line.ljust(start) + text
    return line


def _chosen(lowest: float, highest: float, rows: int, log: bool) -> list[Decimal]:
    if log:
        decades = math.log10(highest / lowest)
        every = max(math.ceil(_ROWS_APART[1] * decades / rows), 1)
        powers = range(math.ceil(math.log10(lowest)), math.floor(math.log10(highest)) + 1)
        if len(powers) >= 2:
            return [Decimal(1).scaleb(each) for each in powers[::every]]
    values: list[Decimal] = []
    for apart in _ROWS_APART:
        values = _multiples(lowest, highest, apart * (highest - lowest) / rows)
        if len(values) >= 2:
            break
    return values


def _multiples(first: float, last: float, apart: float, *, whole: bool = False) -> list[Decimal]:
    """The multiples between the two of the smallest 1, 2 or 5 times a power of ten that is no less than `apart`."""
    power = math.floor(math.log10(apart))
    step = next(
        each for each in (Decimal(digit).scaleb(power) for digit in (1, 2, 5, 10)) if float(each) >= apart * (1 - 1e-9)
    )
    if whole and step < 1:
        step = Decimal(1)
    begin = int((Decimal(first) / step).to_integral_value(ROUND_CEILING))
    return list(takewhile(lambda value: value <= Decimal(last), (number * step for number in count(begin))))


def _written(values: list[Decimal]) -> list[tuple[Decimal, str]]:
    """All digits of each: of everyday size with as many places as the others, else as `words.short` writes them."""
    largest = max(map(abs, values), default=Decimal(0))
    places = max((-int(value.normalize().as_tuple().exponent) for value in values if value), default=0)
    if Decimal("0.001") <= largest < 1_000_000:
        return [(value, f"{value:,.{max(places, 0)}f}") for value in values]
    return [(value, f"{float(value):.{len(value.normalize().as_tuple().digits)}g}") for value in values]


def _place(value: Decimal, first: float, last: float, steps: int, log: bool) -> int:
    """The row or column of a value, counted as the points are."""
    at, low, high = (math.log10(each) if log else each for each in (float(value), first, last))
    return min(max(int((at - low) / (high - low) * steps), 0), steps - 1)
