"""Charts in characters, drawn by uniplot: curve rows in, text out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from mlxops.ui import format as words

Point = tuple[float, float]

_FRAME = str.maketrans("┌┐└┘─│", "++++-|")
_POWER = re.compile(r"10\^(-?[\d.]+)")  # how uniplot labels a logarithmic scale
_FARTHEST = 1e12
_BESIDE = 4  # lines around the plot: legend, frame above and below, labels of the iterations


def loss_chart(
    curve_rows: Iterable[Mapping[str, Any]],
    width: int,
    height: int,
    *,
    unicode: bool = True,
    title: str | None = None,
    log: bool = False,
) -> Text:
    """Train and validation loss over the iterations, within `width` columns and `height` lines.

    The two are told apart by their characters. A train loss that was not finite is a gap; the logarithmic scale is
    used only where every loss is above zero.
    """
    train, validation = _series(curve_rows)
    finite = [point for point in train if not math.isnan(point[1])]
    if not finite and not validation:
        return Text("no losses yet", style="dim")
    if height < _BESIDE + 2 or width < 24:
        return _in_words(finite, validation)
    lost = len(train) - len(finite)
    body = _plot(train if finite else [], validation, width, height - _BESIDE, unicode=unicode, log=log)
    return _legend(title, bool(finite), bool(validation), lost, unicode).append("\n").append_text(body)


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
        kept.extend(sorted({min(finite, key=_value), max(finite, key=_value)}, key=_iteration))
    return kept


def _iteration(point: Point) -> float:
    return point[0]


def _value(point: Point) -> float:
    return point[1]


def _series(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Point], list[Point]]:
    train: list[Point] = []
    validation: list[Point] = []
    for row in rows:
        train_loss, validation_loss = row.get("train_loss"), row.get("validation_loss")
        # SQLite keeps a loss that was not finite as NULL: a row with no loss at all is one of those.
        if train_loss is not None or validation_loss is None:
            train.append((row["iteration"], _drawable(train_loss)))
        if not math.isnan(loss := _drawable(validation_loss)):
            validation.append((row["iteration"], loss))
    return sorted(train, key=_iteration), sorted(validation, key=_iteration)


def _drawable(loss: float | None) -> float:
    """The loss, NaN where it is none; what an axis cannot be labelled with counts as the farthest that it can."""
    if loss is None or not math.isfinite(loss):
        return math.nan
    return round(min(max(loss, -_FARTHEST), _FARTHEST), 12)


def _in_words(train: Sequence[Point], validation: Sequence[Point]) -> Text:
    parts = [
        f"{name} loss {words.number(points[-1][1])}"
        for name, points in (("train", train), ("validation", validation))
        if points
    ]
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


def _legend(title: str | None, has_train: bool, has_validation: bool, lost: int, unicode: bool) -> Text:
    legend = Text(f"{title}   " if title else "", no_wrap=True, overflow="ellipsis")
    if has_train:
        legend.append("⠤⠤" if unicode else "..", "cyan").append(" train   ")
    if has_validation:
        legend.append("o", "bold yellow").append(" validation   ")
    if lost:
        legend.append(f"{lost:,} not finite")
    legend.rstrip()
    return legend


def _plot(
    train: Sequence[Point], validation: Sequence[Point], width: int, height: int, *, unicode: bool, log: bool
) -> Text:
    """Both series in one frame: the train loss as a line, and on top of it an `o` for each validation."""
    losses = [loss for _, loss in (*train, *validation) if math.isfinite(loss)]
    iterations = [iteration for iteration, _ in (*train, *validation)]
    is_log = log and min(losses) > 0
    lowest, highest = _bounds(losses, is_log)
    first = min(iterations) if min(iterations) > 0.5 * max(iterations) and len(set(iterations)) > 1 else 0
    shape = {
        "width": width,
        "line_length_hard_cap": width,
        "height": height,
        "color": False,
        "x_gridlines": [],
        "y_gridlines": [],
        "x_min": first,
        "x_max": max(iterations) or 1,
        "y_min": lowest,
        "y_max": highest,
        "y_as_log": is_log,
    }
    drawn = []
    if train:
        line_shape = {"character_set": "braille" if unicode else "ascii", "force_ascii_characters": ["."]}
        drawn.append(_draw(thin(train, width), lines=True, **line_shape, **shape))
    if validation:
        # Two drawings laid over each other: uniplot tells series in one drawing apart by colour alone.
        drawn.append(_draw(thin(validation, width), character_set="ascii", force_ascii_characters=["o"], **shape))
    return Text("\n").join(
        _overlay(below.ljust(width), above.ljust(width), unicode)
        for below, above in zip(drawn[0], drawn[-1], strict=True)
    )


def _overlay(below: str, above: str, unicode: bool) -> Text:
    under = below if unicode else below.translate(_FRAME)
    merged = "".join(upper if upper == "o" else lower for lower, upper in zip(under, above, strict=False)).rstrip()
    # One span a stretch of equal style, not one a character: Rich's time goes by spans.
    return Text.assemble(*(("".join(stretch), style) for style, stretch in groupby(merged, _style_of)))


def _style_of(character: str) -> str:
    return "bold yellow" if character == "o" else "cyan" if "⠁" <= character <= "⣿" else ""


def _bounds(losses: Sequence[float], is_log: bool) -> tuple[float, float]:
    lowest, highest = min(losses), max(losses)
    if is_log:
        return lowest / 1.05, highest * 1.05
    reach = max(abs(lowest), abs(highest)) or 1.0
    margin = (highest - lowest) * 0.03 if highest - lowest > reach * 1e-6 else reach * 0.1
    return lowest - margin, highest + margin


def _draw(points: Sequence[Point], **options: Any) -> list[str]:
    from uniplot import plot_to_string

    drawing: str = plot_to_string(ys=[loss for _, loss in points], xs=[iteration for iteration, _ in points], **options)
    return [_POWER.sub(_write_out, row) for row in drawing.split("\n")]


def _write_out(power: re.Match[str]) -> str:
    return f"{10 ** float(power[1]):.3g}"
