"""Charts of runs, drawn by matplotlib: as SVG for a page, as PNG for a README. Rows in, text or bytes out.

matplotlib is imported here alone, and its global state neither used nor changed: the same rows give the same bytes
whatever a person's matplotlibrc says.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import words
from mlxops.errors import BadRequest
from mlxops.ui.charts import losses as charts
from mlxops.ui.charts import svg
from mlxops.ui.charts.plot import drawable
from mlxops.ui.charts.raster import Point

if TYPE_CHECKING:
    from mlxops.jobs.run.comparison import Comparison, Loss, RunCurves
    from mlxops.jobs.run.report import ReportedRun
    from mlxops.registry import AttemptRow, LossPoint, Range

Size = tuple[float, float]

WIDE, NARROW = (1040.0, 430.0), (400.0, 360.0)
"""Sizes of charts in pixels: for a page and for a telephone."""

_LINES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (9, 2, 2, 2)))
_MARKS = "os^DvPX*"
_SMALL = (400.0, 190.0)  # of charts that stand beside each other
_POINTS_AN_INCH = 72
_PNG, _PNG_PIXELS = (880.0, 440.0), 1600  # letters as large, beside the curves, as on the page
_FEW = 60  # points up to which each is marked
_WIDEST_SCALE = 20.0  # the highest over the lowest value from which on the scale is logarithmic
_FEWEST_SMOOTHED = 8  # ranges below which smoothing would only hide points
_MOST_NUMBERED = 8  # attempts that are numbered in the chart
_ROOM = 0.1  # of the width: how far beside the losses an attempt may begin
_LONGEST_NAME = 48
_UNITS = {"iterations": "iterations", "tokens": "trained tokens", "time": "seconds at work"}


def require() -> None:
    """Raise `BadRequest` with what to type where matplotlib is missing."""
    _part("")


def loss(found: ReportedRun, name: str, size: Size, alt: str) -> str:
    """The losses of a run as SVG whose ids begin with `name`."""
    with _figure(size, salt=name) as figure:
        _losses(figure, figure.add_subplot(), found, is_narrow=size[0] < WIDE[0])
        return svg.themed(_saved(figure), name, alt)


def small(curves: Sequence[tuple[str, Sequence[Range]]], name: str, alt: str, *, scale: float = 1.0) -> str:
    """One curve, or a few of one unit with their labels, as a small SVG; values are multiplied by `scale`."""
    with _figure(_SMALL, salt=name) as figure:
        axes = figure.add_subplot()
        values: list[float] = []
        drawn = []
        for number, (_, ranges) in enumerate(curves):
            points = [(at, value * scale) for at, value in charts.raw_points(ranges)]
            values += [value for _, value in points]
            drawn.append(_line(axes, points, svg.SERIES[number], style=_LINES[number], width=1.4))
        _scale(axes, values)
        if len(curves) > 1:
            _legend(figure, drawn, [label for label, _ in curves], columns=2)
        return svg.themed(_saved(figure), name, alt)


def overlay(found: Comparison, name: str, size: Size, alt: str) -> str:
    """The losses of a comparison over each other as SVG, each run a letter."""
    is_narrow = size[0] < WIDE[0]
    with _figure((size[0], size[1] * 1.7) if is_narrow else size, salt=name) as figure:
        names = [chr(ord("A") + number) for number in range(len(found.curves))]
        _overlaid(figure, found, names, is_narrow=is_narrow)
        return svg.themed(_saved(figure), name, alt)


def png(run: ReportedRun | None, comparison: Comparison | None) -> bytes:
    """The losses of a run, or of several over each other, as a PNG of 1600 x 800 pixels on white."""
    with _figure(_PNG, salt="", background="white") as figure:
        if run is not None and has_losses(run):
            _losses(figure, figure.add_subplot(), run, is_narrow=False, title=_shown(run.details.run["name"]))
        elif run is not None:
            nothing = f"{_shown(run.details.run['name'])}: no loss that could be drawn"
            figure.text(0.5, 0.5, nothing, ha="center", va="center", parse_math=False)
        elif comparison is not None:
            rows = comparison.curves
            names = [f"{chr(ord('A') + number)}  {_shown(row.name)}" for number, row in enumerate(rows)]
            _overlaid(figure, comparison, names, is_narrow=False)
        # half a pixel more: what is cut off behind the point must not be a whole one
        dots = (_PNG_PIXELS + 0.5) / (_PNG[0] / _POINTS_AN_INCH)
        made = io.BytesIO()
        figure.set_dpi(dots)
        _part("backends.backend_agg").FigureCanvasAgg(figure).print_png(made, metadata={"Software": "mlxops"})
    return made.getvalue()


def has_losses(found: ReportedRun) -> bool:
    """Whether a run has a loss that can be drawn."""
    return any(each["finite"] for name in ("train_loss", "validation_loss") for each in found.curves[name])


def is_smoothed(found: ReportedRun) -> bool:
    """Whether the train losses are enough for their mean to be drawn."""
    return sum(bool(row["finite"]) for row in found.curves["train_loss"]) >= _FEWEST_SMOOTHED


def has_points(curve: RunCurves) -> bool:
    """Whether a run of a comparison has a loss that can be drawn."""
    return any(math.isfinite(drawable(value)) for _, value in (*curve.train_loss, *curve.validation_loss))


# what stands in a chart ---------------------------------------------------------------------------------------------


def _losses(figure: Any, axes: Any, found: ReportedRun, *, is_narrow: bool, title: str | None = None) -> None:
    """Train losses faint and smoothed, validations with their errors, the best, and where attempts begin."""
    details, train = found.details, found.curves["train_loss"]
    raw, smooth = charts.raw_points(train), charts.smooth_points(train)
    validations = [row for row in details.curve if math.isfinite(drawable(row["validation_loss"]))]
    blue, orange, green = svg.SERIES[0], svg.SERIES[1], svg.SERIES[2]
    shown: list[tuple[Any, str]] = []
    is_faint = is_smoothed(found)
    if any(math.isfinite(value) for _, value in raw):
        drawn = _line(axes, raw, blue, width=0.8 if is_faint else 1.6, alpha=0.4 if is_faint else 1.0)
        shown.append((drawn, "train"))
    if is_faint:
        shown.append((_line(axes, smooth, blue, width=2.0, is_marked=False), "train, smoothed"))
    if validations:
        label = "validation ± standard error" if _have_errors(validations) else "validation"
        shown.append((_validations(axes, validations, orange), label))
    lowest_loss = details.run["best_validation_loss"]
    best = details.run["best_iteration"], drawable(lowest_loss)
    if best[0] is not None and math.isfinite(best[1]):
        place = {"marker": "*", "markersize": 13, "markeredgewidth": 0.8, "linestyle": "none", "zorder": 6}
        (star,) = axes.plot(*[[each] for each in best], color=green, markeredgecolor=svg.INK, **place)
        shown.append((star, f"best: {words.number(lowest_loss)}"))
    lost = [row["iteration"] for row in train if row["finite"] < row["count"]]
    if lost:
        at_the_frame = axes.get_xaxis_transform()
        style = {"linestyle": "none", "marker": "x", "markersize": 6, "clip_on": False, "zorder": 6}
        (marks,) = axes.plot(lost, [0.0] * len(lost), transform=at_the_frame, color=svg.INK, **style)
        shown.append((marks, "not finite"))
    spread = [row["validation_standard_error"] or 0.0 for row in validations]
    lowest = [drawable(row["validation_loss"]) - error for row, error in zip(validations, spread, strict=True)]
    _scale(axes, [value for _, value in raw] + lowest + [best[1]])
    resumed = _attempts(axes, details.attempts)
    if resumed is not None:
        shown.append((resumed, "an attempt begins"))
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss, nats per token" + (", logarithmic" if axes.get_yscale() == "log" else ""))
    labels = [label for _, label in shown]
    _legend(figure, [each for each, _ in shown], labels, columns=2 if is_narrow else 6, title=title)


def _validations(axes: Any, rows: Sequence[LossPoint], colour: str) -> Any:
    """Validations as marks with bars; of very many a line within a band."""
    at = [row["iteration"] for row in rows]
    losses = [drawable(row["validation_loss"]) for row in rows]
    errors = [max(drawable(row["validation_standard_error"] or 0.0), 0.0) for row in rows]
    style = {"color": colour, "linewidth": 1.2, "linestyle": "--", "zorder": 5}
    if len(rows) > _FEW:
        pairs = list(zip(losses, errors, strict=True))
        axes.fill_between(at, [each - e for each, e in pairs], [each + e for each, e in pairs], color=colour, alpha=0.2)
        return axes.plot(at, losses, **style)[0]
    known = errors if _have_errors(rows) else None
    return axes.errorbar(at, losses, known, **style, marker="o", markersize=5, elinewidth=1.2, capsize=3)


def _have_errors(rows: Sequence[LossPoint]) -> bool:
    return any(row["validation_standard_error"] is not None for row in rows)


def _attempts(axes: Any, attempts: Sequence[AttemptRow]) -> Any:
    """A line where each later attempt begins, with its number, unless that would stand on another's.

    One that begins far from all that is drawn is left out: an empty stretch would take the chart's width.
    """
    first, last = axes.get_xlim()
    room = (last - first) * _ROOM
    line, before = None, -math.inf
    later = [each for each in attempts[1:] if first - room <= each["from_iteration"] <= last + room]
    begins = [each["from_iteration"] for each in later]
    first, last = min([first, *begins]), max([last, *begins])
    axes.set_xlim(first, last)
    for each in later:
        at = each["from_iteration"]
        line = axes.axvline(at, color=svg.INK, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        place = (at - first) / (last - first)
        if len(later) <= _MOST_NUMBERED and place - before > 0.04:
            number = axes.annotate(
                str(each["number"]), (place, 1.0), (3 if place < 0.97 else -10, -11), xycoords="axes fraction",
                textcoords="offset points", fontsize=10, color=svg.SOFT, annotation_clip=False,
            )  # fmt: skip
            number.set_in_layout(False)  # it stands inside, and must not make the frame narrower
            before = place
    return line


def _overlaid(figure: Any, found: Comparison, names: Sequence[str], *, is_narrow: bool) -> None:
    """Both losses of several runs, in a frame each; lines, marks and letters tell the runs apart without colour."""
    frames = figure.subplots(*((2, 1) if is_narrow else (1, 2)), squeeze=False).flatten()
    handles: dict[int, Any] = {}
    losses: tuple[Loss, Loss] = ("train_loss", "validation_loss")
    for axes, name in zip(frames, losses, strict=True):
        values: list[float] = []
        for number, curve in enumerate(found.curves):
            points = [(place, drawable(value)) for place, value in curve.of(name)]
            if not any(math.isfinite(value) for _, value in points):
                continue
            values += [value for _, value in points]
            drawn = _one_of_several(axes, points, number, is_smoothed=name == "train_loss")
            handles.setdefault(number, drawn)
        _scale(axes, values)
        axes.set_title(name.replace("_", " ") + (", logarithmic" if axes.get_yscale() == "log" else ""), fontsize=11)
        axes.set_xlabel(_UNITS[found.by])
    order = sorted(handles)
    longest = max((len(names[number]) for number in order), default=0)
    columns = 8 if longest < 4 else 2 if longest < 40 else 1
    _legend(figure, [handles[number] for number in order], [names[number] for number in order], columns=columns)


def _one_of_several(axes: Any, points: Sequence[Point], number: int, *, is_smoothed: bool) -> Any:
    """One run's line, each narrower than the one below it: of two that are the same both are seen."""
    colour, style, width = svg.SERIES[number], _LINES[number], 2.6 - 0.2 * number
    line = list(points)
    if is_smoothed and len(points) > _FEW:
        _line(axes, points, colour, width=0.6, alpha=0.25, is_marked=False)
        line = charts.smooth([(at, value, 1) for at, value in points if math.isfinite(value)])
    every = max(len(line) // 8, 1)
    drawn = _line(axes, line, colour, style=style, width=width, is_marked=False)
    drawn.set(marker=_MARKS[number], markersize=5, markevery=every)
    return drawn


def _line(
    axes: Any, points: Sequence[Point], colour: str, *, style: Any = "-", width: float, alpha: float = 1.0,
    is_marked: bool = True,
) -> Any:  # fmt: skip
    """A line that breaks where a value was not finite; a point alone between two breaks is a dot."""
    at, values = [place for place, _ in points], [value for _, value in points]
    (line,) = axes.plot(at, values, color=colour, linestyle=style, linewidth=width, alpha=alpha)
    if is_marked and len(points) <= _FEW:
        line.set(marker="o", markersize=max(2 * width, 2.5))
    else:
        around = [math.nan, *values, math.nan]
        alone = [
            place
            for place, point in enumerate(values)
            if math.isfinite(point) and math.isnan(around[place]) and math.isnan(around[place + 2])
        ]
        if alone:
            axes.plot([at[each] for each in alone], [values[each] for each in alone], ".", color=colour, alpha=alpha)
    return line


def _scale(axes: Any, values: Sequence[float]) -> None:
    """A scale that shows all of it, logarithmic where a plain one would hide most, and labels that differ."""
    ticker = _part("ticker")
    finite = [value for value in values if math.isfinite(value)]
    lowest, highest = min(finite, default=0.0), max(finite, default=1.0)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6 if axes.figure.bbox.width > 500 else 4, integer=True))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _place(value)))
    if finite and axes.dataLim.width == 0:
        only = axes.dataLim.x0
        around = max(1.0, abs(only) * 1e-9)
        axes.set_xlim(only - around, only + around)
        axes.set_xticks([only])
    if lowest > 0 and highest / lowest >= _WIDEST_SCALE:
        axes.set_yscale("log")
        steps = (1.0, 2.0, 5.0) if highest / lowest < 1e4 else (1.0,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=8))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        digits = 4
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6))
        span = (highest - lowest) or abs(highest) or 1.0
        digits = min(max(math.ceil(math.log10(max(abs(lowest), abs(highest), span) / span)) + 3, 4), 12)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _label(value, digits)))


def _place(value: float) -> str:
    """A place on the axis below: iterations and tokens are whole, a time need not be.

    >>> _place(1000.0), _place(2.50)
    ('1,000', '2.5')
    """
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _label(value: float, digits: int) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.{digits}g}"


def _legend(
    figure: Any, handles: Sequence[Any], labels: Sequence[str], *, columns: int, title: str | None = None
) -> None:
    place = {"loc": "outside upper left", "frameon": False, "columnspacing": 1.4, "alignment": "left"}
    if handles or title:
        columns = min(columns, max(len(handles), 1))
        legend = figure.legend(list(handles), list(labels), ncols=columns, title=title, title_fontsize=13, **place)
        for text in (*legend.get_texts(), legend.get_title()):
            text.set_parse_math(False)  # a name may hold dollars


def _shown(name: str) -> str:
    """A run's name as the font can draw it: what it has no sign for is a `?`, and a long one is cut."""
    manager, font = _part("font_manager"), _part("ft2font")
    known = font.FT2Font(manager.findfont("DejaVu Sans")).get_charmap()
    text = "".join(each if ord(each) in known else "?" for each in words.visible(name))
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


# matplotlib ---------------------------------------------------------------------------------------------------------


@contextmanager
def _figure(size: Size, *, salt: str, background: str = "none") -> Iterator[Any]:
    """A figure of so many pixels, drawn without pyplot and with our own settings alone."""
    matplotlib = _part("")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(svg.STYLE | {"svg.hashsalt": salt or "mlxops"})
        inches = (size[0] / _POINTS_AN_INCH, size[1] / _POINTS_AN_INCH)
        yield _part("figure").Figure(figsize=inches, layout="constrained", facecolor=background)


def _saved(figure: Any) -> str:
    made = io.StringIO()
    # not by `savefig`, which draws everything twice
    _part("backends.backend_svg").FigureCanvasSVG(figure).print_svg(made, metadata={"Date": None})
    return made.getvalue()


def _part(name: str) -> Any:
    """A module of matplotlib, without its drawing to a screen."""
    try:
        if "matplotlib" not in sys.modules:
            with _without_settings():
                import_module("matplotlib")
        return import_module(f"matplotlib.{name}" if name else "matplotlib")
    except ImportError:
        raise BadRequest(
            "a report is drawn by the library matplotlib, which is not installed", hint=f"{_installing()} adds it"
        ) from None


@contextmanager
def _without_settings() -> Iterator[None]:
    """Let matplotlib be imported as if nobody had set anything: what it cannot read it would refuse, or complain of.

    It takes a matplotlibrc of the current folder before all others, so for that long an empty one is there.
    """
    # without a handler its warnings would be printed: of folders it may not write to, of styles it cannot read
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        with tempfile.TemporaryDirectory() as empty:
            (Path(empty) / "matplotlibrc").touch()
            with chdir(empty):
                yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def _installing() -> str:
    """What to type so that the Python that runs this has matplotlib."""
    try:
        importlib.metadata.version("mlxops")
        wanted = "mlxops[report]"
    except importlib.metadata.PackageNotFoundError:
        wanted = "matplotlib>=3.10"  # mlxops is used from a folder, and pip does not know it
    return f"{shlex.quote(sys.executable)} -m pip install '{wanted}'"
