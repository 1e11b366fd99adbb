"""How far a run is and where its loss is heading: the lines that the live screen and the monitor have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from mlxops import words
from mlxops.ui.terminal import lines

if TYPE_CHECKING:
    from mlxops.analysis.trend import Trend

_SHORTEST_BAR = 10


def bar(
    iteration: int,
    target: int | None,
    width: int,
    *,
    rate: float | None = None,
    left: float | None = None,
    until: str | None = None,
    unicode: bool = True,
) -> Text:
    """What is done as a bar over the whole width, with the rate of the steps and the time left where they are known.

    `target` is None where it is not known. `until` stands where a time of day stays true and a time left does not.
    """
    fraction = None if target is None else min(iteration / target, 1.0) if target else 1.0
    after = f"  {words.progress(iteration, target)}"
    after += "  target not known" if fraction is None else f"  {words.percent(fraction)}"
    ends = f"  until {until}" if until is not None else "" if left is None else f"  {words.duration(left)} left"
    speed = "" if rate is None else f"  {words.short(rate)} it/s"
    # the end says more than the rate
    if len(after) + len(speed) + len(ends) + _SHORTEST_BAR > width:
        speed = ""
    after += speed + ends
    return lines.bar(fraction, max(width - len(after), 0), unicode=unicode).append(after)


def trend(found: Trend | None, width: int) -> Text:
    """The slope of the train loss with its interval; a direction is named only where the interval leaves one.

    Of how many reports it comes is left out where it does not fit.
    """
    if found is None:
        return lines.line("trend: too few reports yet", "dim")
    style = {"falling": "green", "rising": "red"}.get(found.direction, "")
    slope, lowest, highest = (f"{100 * each:+.2g}" for each in (found.slope, found.lowest, found.highest))
    text = lines.line().append("train loss ", "dim").append(found.direction, style)
    text.append(f": {slope} per 100 iterations (95 %: {lowest} to {highest})")
    of = f", {words.plural(found.points, 'report')}"
    return text.append(of, "dim") if text.cell_len + len(of) <= width else text
