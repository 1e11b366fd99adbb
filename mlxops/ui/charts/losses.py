"""The charts: losses of a run, of several, and the small curves beside them. Rows in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from mlxops import words
from mlxops.ui.charts.plot import LINE, Layer, draw, drawable, thin
from mlxops.ui.charts.raster import Point

if TYPE_CHECKING:
    from mlxops.jobs.train.monitor import OtherRun, Snapshot
    from mlxops.registry import LossPoint, Range

__all__ = ["Shown", "level_chart", "loss_chart", "run_chart", "smooth_points", "spark", "thin"]

Shown = Literal["both", "raw", "smoothed"]

Legend = list[tuple[str, str]]
"""Texts and their styles."""

_BESIDE = 4  # lines around the plot: legend, frame above and below, labels of the iterations
_COLOURS = ("cyan", "magenta", "green", "red", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
_SPAN = 0.02  # of the iterations shown: how far around it a smoothed curve looks
_APART = 4  # columns a validation takes where there are many, so that the line below them is seen
_FEWEST = 8  # ranges below which smoothing would only hide points


def loss_chart(
    curve: Iterable[LossPoint],
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
    train, validation = _series(curve)
    finite = [point for point in train if not math.isnan(point[1])]
    if not finite and not validation:
        return Text("no losses yet", style="dim")
    if height < _BESIDE + 2 or width < 24:
        return _in_words(finite, validation)
    legend = _title(title)
    layers = []
    if finite:
        layers.append(_line(train))
        legend += [("⠤⠤" if unicode else "..", "cyan"), (" train   ", "")]
    if validation:
        layers.append(Layer(points=validation, style="bold yellow", mark="o"))
        legend += [("o", "bold yellow"), (" validation   ", "")]
    if lost := len(train) - len(finite):
        legend.append((f"{lost:,} not finite", ""))
    body = draw(layers, width, height - _BESIDE, unicode=unicode, log=log, whole=True)
    return Text("\n").join([_legend(legend), *body])


def run_chart(
    snapshot: Snapshot,
    width: int,
    height: int,
    *,
    unicode: bool = True,
    log: bool = False,
    shown: Shown = "both",
) -> list[Text]:
    """The losses of a snapshot's run with its attempts, warnings and checkpoints, or of several runs over each other.

    The later attempts stand on the frame above by their number, where a line goes down; `!` is a warning, and `^` on
    the frame below a checkpoint. Of several runs each has a letter, and its validations are that letter as a capital.
    """
    finite = [row for name in ("train_loss", "validation_loss") for row in _of(snapshot, name) if row["finite"]]
    others = [other for other in snapshot.others if any(row["finite"] for row in _of(other, "train_loss"))]
    if not finite and not others:
        return [Text("no losses yet", style="dim")]
    if height < _BESIDE + 2 or width < 24:
        return [_in_words(raw_points(_of(snapshot, "train_loss")), raw_points(_of(snapshot, "validation_loss")))]
    most = max(width // (2 * _APART), 1)
    layers, legend = _several(snapshot, others, shown, most) if others else _one(snapshot, shown, most, unicode)
    above: dict[float, str] = dict.fromkeys(snapshot.warnings, "!")
    later = [row for row in snapshot.attempts if row["number"] > 1]
    resumed: dict[float, str] = {row["from_iteration"]: _digit(row["number"]) for row in later}
    saved: dict[float, str] = {row["iteration"]: "^" for row in snapshot.checkpoints if row["status"] == "whole"}
    keys = (("2", resumed, "attempt"), ("!", above, "warning"), ("^", saved, "checkpoint"))
    legend += [(f"{mark} {name}   ", "dim") for mark, there, name in keys if there]
    if lost := sum(row["count"] - row["finite"] for row in _of(snapshot, "train_loss")):
        legend.append((f"{lost:,} not finite", ""))
    body = draw(
        layers,
        width,
        height - _BESIDE,
        unicode=unicode,
        log=log,
        first=snapshot.since or None,
        above=above | resumed,
        below=saved,
        upright=resumed,
        whole=True,
    )
    return [_legend(legend), *body]


def level_chart(
    ranges: Sequence[Range], width: int, height: int, *, unicode: bool = True, first: float | None = None
) -> list[Text]:
    """One curve as a line in a frame of `height` lines in all; nothing where it has no finite value or no room."""
    points = raw_points(ranges)
    if height < 4 or width < 20 or not any(math.isfinite(value) for _, value in points):
        return []
    return draw([_line(points)], width, height - 3, unicode=unicode, first=first, whole=True)


def spark(ranges: Sequence[Range], width: int, *, unicode: bool = True, first: float | None = None) -> Text:
    """One curve within one line, without a scale; nothing where only ASCII can be shown."""
    points = [(row["iteration"], drawable(row["mean"])) for row in ranges]
    if not unicode or width < 4 or not any(math.isfinite(value) for _, value in points):
        return Text()
    line = draw([_line(points)], width + 2, 1, unicode=True, first=first, labels=False)[1].plain
    return Text(line[1:-1], style="cyan")


def raw_points(ranges: Sequence[Range]) -> list[Point]:
    """The lowest and the highest point of each range; a range without a finite one is a gap."""
    points: set[Point] = set()
    for row in ranges:
        if not row["finite"]:
            points.add((row["low_iteration"], math.nan))
            continue
        points.add((row["low_iteration"], drawable(row["low"])))
        points.add((row["high_iteration"], drawable(row["high"])))
    return sorted(points, key=lambda point: point[0])


def smooth_points(ranges: Sequence[Range]) -> list[Point]:
    """The curve's mean around each of its points: what lies 2 % of the iterations shown away counts 1/e.

    A range weighs as much as it has finite points. Looking both ways, it does not lag behind the curve.
    """
    return smooth([(row["iteration"], drawable(row["mean"]), row["finite"]) for row in ranges if row["finite"]])


def smooth(means: Sequence[tuple[float, float, int]]) -> list[Point]:
    """The same of places, each with the mean of its finite points and how many they are."""
    if not means:
        return []
    span = max((means[-1][0] - means[0][0]) * _SPAN, 1e-9)
    before, after = _sums(means, span), _sums(means[::-1], span)[::-1]
    points = []
    for (place, mean, own), (total, weight), (total_after, weight_after) in zip(means, before, after, strict=True):
        around = (total + total_after - mean * own) / (weight + weight_after - own)
        points.append((place, drawable(around)))
    return points


def _sums(means: Sequence[tuple[float, float, int]], span: float) -> list[tuple[float, float]]:
    """The weighted sum and the weight of each place and those before it, fading with their distance."""
    sums = []
    total = weight = 0.0
    before = means[0][0]
    for place, mean, own in means:
        kept = math.exp(-abs(place - before) / span)
        before = place
        total = total * kept + mean * own
        weight = weight * kept + own
        sums.append((total, weight))
    return sums


def _one(snapshot: Snapshot, shown: Shown, most: int, unicode: bool) -> tuple[list[Layer], Legend]:
    train, validation = _of(snapshot, "train_loss"), _of(snapshot, "validation_loss")
    legend = _title("loss")
    layers = []
    if sum(bool(row["finite"]) for row in train) < _FEWEST:
        shown = "raw"
    line = "⠤⠤" if unicode else "=="
    if shown == "both":
        layers.append(Layer(points=raw_points(train), style="dim cyan", mark="·" if unicode else "."))
        legend += [("·" if unicode else ".", "dim cyan"), (" train   ", "")]
    if shown in ("both", "smoothed"):
        layers.append(_line(smooth_points(train), "bold cyan", "="))
        legend += [(line, "bold cyan"), (" smoothed   ", "")]
    elif any(row["finite"] for row in train):
        layers.append(_line(raw_points(train)))
        legend += [(line if unicode else "..", "cyan"), (" train   ", "")]
    if any(row["finite"] for row in validation):
        best = min((row for row in validation if row["finite"]), key=lambda row: drawable(row["low"]))
        layers.append(Layer(points=thin(raw_points(validation), most), style="bold yellow", mark="o"))
        layers.append(Layer(points=[(best["low_iteration"], drawable(best["low"]))], style="bold green", mark="*"))
        legend += [("o", "bold yellow"), (" validation   ", ""), ("*", "bold green"), (" best   ", "")]
    return layers, legend


def _several(snapshot: Snapshot, others: Sequence[OtherRun], shown: Shown, most: int) -> tuple[list[Layer], Legend]:
    legend: Legend = []
    lines, marks = [], []
    named: list[tuple[int, str, Snapshot | OtherRun]] = [(snapshot.place, snapshot.run["name"], snapshot)]
    named += [(other.place, other.name, other) for other in others]
    for index, name, run in sorted(named, key=lambda each: each[:2]):
        letter, colour = "abcdefghijkl"[index], _COLOURS[index % len(_COLOURS)]
        train, validation = _of(run, "train_loss"), _of(run, "validation_loss")
        points = raw_points(train) if shown == "raw" else smooth_points(train)
        lines.append(Layer(points=points, style=colour, letter=letter, plain=letter))
        marks.append(Layer(points=thin(raw_points(validation), most), style=f"bold {colour}", mark=letter.upper()))
        legend += [(letter, f"bold {colour}"), (f" {words.visible(name)}   ", "")]
    if any(layer.points for layer in marks):
        legend.append(("capitals: validation   ", "dim"))
    return [layer for layer in (*lines, *marks) if layer.points], legend


def _line(points: Sequence[Point], style: str = "cyan", plain: str = ".") -> Layer:
    return Layer(points=points, style=style, mark=LINE, plain=plain)


def _of(run: Snapshot | OtherRun, name: str) -> Sequence[Range]:
    found: Sequence[Range] = run.curves.get(name, [])
    return found


def _digit(number: int) -> str:
    return str(number) if number < 10 else "+"


def _title(title: str | None) -> Legend:
    return [(f"{title}   ", "")] if title else []


def _legend(parts: Sequence[tuple[str, str]]) -> Text:
    legend = Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
    legend.rstrip()
    return legend


def _series(rows: Iterable[LossPoint]) -> tuple[list[Point], list[Point]]:
    train: list[Point] = []
    validation: list[Point] = []
    for row in rows:
        train_loss, validation_loss = row["train_loss"], row["validation_loss"]
        # SQLite keeps a loss that was not finite as NULL: a row with no loss at all is one of those.
        if train_loss is not None or validation_loss is None:
            train.append((row["iteration"], drawable(train_loss)))
        if not math.isnan(loss := drawable(validation_loss)):
            validation.append((row["iteration"], loss))
    return sorted(train, key=lambda point: point[0]), sorted(validation, key=lambda point: point[0])


def _in_words(train: Sequence[Point], validation: Sequence[Point]) -> Text:
    parts = [
        f"{name} loss {words.number(points[-1][1])}"
        for name, points in (("train", train), ("validation", validation))
        if points
    ]
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")
