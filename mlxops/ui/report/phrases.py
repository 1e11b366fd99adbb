"""What a report says in sentences: how a run went, what a chart shows, which of several runs did best."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from mlxops import times, words
from mlxops.ui.run.results import measured

if TYPE_CHECKING:
    from mlxops.jobs.run.comparison import Comparison
    from mlxops.jobs.run.report import ReportedRun
    from mlxops.jobs.run.show import RunDetails
    from mlxops.registry import RunSummaryView, SeriesRow

_LONGEST = 4_000  # characters of a text of somebody's data


def when(text: str | None) -> str:
    """A time of the registry, for those who read it later and elsewhere.

    >>> when("2026-11-22T16:20:13.123Z")
    '2026-11-22 16:20:13 UTC'
    """
    return words.NOTHING if text is None else f"{times.time_of(text):%Y-%m-%d %H:%M:%S} UTC"


def lines(text: Any) -> str:
    """A text with its own lines, all other control characters shown and not obeyed; the end of a very long one is cut.

    >>> lines("two\\nlines\\x07"), lines(None)
    ('two\\nlines\\\\x07', '-')
    """
    if text is None:
        return words.NOTHING
    shown = "\n".join(words.visible(line) for line in str(text).expandtabs(4).split("\n"))
    if len(shown) <= _LONGEST:
        return shown
    return f"{shown[:_LONGEST]}… ({words.count(len(shown) - _LONGEST)} characters more)"


def how_it_went(details: RunDetails) -> str:
    """One sentence: how the run ended or where it is, and what became of its loss."""
    said = [_ending(details), _validation(details)]
    return "; ".join(filter(None, said)) + "."


def progress(row: RunSummaryView) -> str:
    """The iterations that are done, and of how many where a target is known."""
    return words.progress(row["iteration"], row["target_iterations"] if row["is_target_known"] else None, " of ")


def _ending(details: RunDetails) -> str:
    row, attempts = details.run, details.attempts
    at = progress(row)
    ended, failure = (attempts[-1]["end_reason"], attempts[-1]["error"]) if attempts else (None, None)
    # of an imported run nobody knows why it ended
    is_known = ended and not (row["imported_from"] and ended == "unknown")
    reason = words.visible(ended) if is_known else ""
    spent = f" in {words.duration(row['seconds'])}" if row["seconds"] else ""
    if row["status"] == "completed":
        if reason == "early stopping":
            return f"Stopped early at iteration {at}{spent}"
        return f"Completed: {_iterations(row['iteration'])}{spent}"
    if row["status"] == "failed":
        error = f": {words.visible(failure)}" if failure else ""
        return f"Failed at iteration {at}{f' ({reason})' if reason else ''}{error}"
    if row["status"] == "running":
        left = f", {words.duration(row['eta_seconds'])} left" if row["eta_seconds"] is not None else ""
        return f"Still running, as of {when(row['updated_at'])}: iteration {at}{left}"
    if row["status"] == "lost":
        return f"Lost at iteration {at}: its process ended without a word"
    if row["status"] == "interrupted":
        return f"Interrupted at iteration {at}{f' ({reason})' if reason else ''}"
    return "Created, not begun"


def _iterations(number: int) -> str:
    return f"{words.count(number)} iteration{'' if number == 1 else 's'}"


def _validation(details: RunDetails) -> str:
    points = [row for row in details.curve if row["validation_loss"] is not None]
    if not points:
        known = [row["train_loss"] for row in details.curve if row["train_loss"] is not None]
        if not known and details.curve:
            return "no loss was finite"
        if not known:
            return "no losses yet" if details.run["status"] in ("created", "running") else "no losses"
        if len(known) == 1:
            return f"train loss {words.number(known[0])}, no validation"
        return f"train loss from {words.number(known[0])} to {words.number(known[-1])}, no validation"
    first, last = points[0], points[-1]
    ended = measured(last["validation_loss"], last["validation_standard_error"])
    if len(points) == 1:
        return f"validation loss {ended} at iteration {words.count(last['iteration'])}"
    said = f"validation loss from {words.number(first['validation_loss'])} to {ended}"
    best = details.run["best_iteration"]
    if best is None or best == last["iteration"]:
        return f"{said}, its lowest" if best is not None else said
    return f"{said}, lowest {words.number(details.run['best_validation_loss'])} at iteration {words.count(best)}"


def chart_of_losses(details: RunDetails) -> str:
    """What the chart of a run's losses shows, for those who cannot see it."""
    said = [f"Loss over {_iterations(details.run['iteration'])}."]
    for name, points in (
        ("Train", [(row["iteration"], row["train_loss"]) for row in details.curve]),
        ("Validation", [(row["iteration"], row["validation_loss"]) for row in details.curve]),
    ):
        known = [point for point in points if point[1] is not None]
        if known:
            said.append(f"{name} loss {_from_to(known)}.")
    if details.run["best_iteration"] is not None:
        best = words.number(details.run["best_validation_loss"])
        said.append(f"The lowest validation loss is {best} at iteration {words.count(details.run['best_iteration'])}.")
    begins = [words.count(each["from_iteration"]) for each in details.attempts[1:]]
    if begins:
        said.append(f"Later attempts begin at iteration {words.listed(begins, 8)}.")
    return " ".join(said)


def caption(found: ReportedRun, *, is_smoothed: bool) -> str:
    """What the line of train losses is made of; nothing where there is none."""
    train = found.curves["train_loss"]
    if not any(row["finite"] for row in train):
        return ""
    mean = ", and their mean around each point" if is_smoothed else ""
    # of two points both are drawn
    thinned = "; of each stretch the lowest and the highest" if any(row["count"] > 2 for row in train) else ""
    return f"Train losses as reported{mean}{thinned}."


def chart_of_metric(title: str, name: str, series: SeriesRow) -> str:
    """What a small chart shows, for those who cannot see it; `series` is the curve's row of that table."""
    low, high = words.metric(name, series["min_value"]), words.metric(name, series["max_value"])
    if series["first_iteration"] == series["last_iteration"]:
        return f"{title} at iteration {words.count(series['first_iteration'])}: {low}."
    first, last = words.count(series["first_iteration"]), words.count(series["last_iteration"])
    return f"{title} from iteration {first} to {last}, between {low} and {high}."


def chart_of_several(found: Comparison, unit: str) -> str:
    """What the chart of several runs shows, for those who cannot see it."""
    said = [f"Train and validation losses of {len(found.runs)} runs by {unit}."]
    for letter, row in zip(ascii_uppercase, found.runs, strict=False):
        values = f"train {words.number(row.train_loss)}, validation {words.number(row.validation_loss)}"
        said.append(f"{letter}, {words.visible(row.name)}, ends with {values}.")
    return " ".join(said)


def _from_to(points: Sequence[tuple[int, float | None]]) -> str:
    def at(point: tuple[int, float | None]) -> str:
        return f"{words.number(point[1])} at iteration {words.count(point[0])}"

    return at(points[0]) if len(points) == 1 else f"from {at(points[0])} to {at(points[-1])}"


def which_is_lowest(found: Comparison) -> str:
    """One sentence: the run with the lowest best validation loss, and whether the others are above it for certain."""
    losses = [row for row in found.differences if row.loss == "best" and row.difference is not None]
    if not losses:
        return "None of the runs has a validation loss."
    if len(losses) == 1:
        return f"Only {words.visible(losses[0].name)} has a validation loss."
    lowest = [row.name for row in losses if row.difference == 0]
    said = f"{_listed(lowest)} {'has' if len(lowest) == 1 else 'share'} the lowest validation loss, "
    values = [row for row in found.runs if row.name in lowest]
    errors = {row.best_standard_error for row in values}
    said += measured(values[0].best_validation_loss, errors.pop() if len(errors) == 1 else None)
    others = [row for row in losses if row.difference != 0]
    if not others:
        return f"{said}."
    near = [row for row in others if not row.exceeds]
    if not near:
        above = f"{words.visible(others[0].name)} is" if len(others) == 1 else "the others are"
        return f"{said}; {above} significantly worse."
    names = ", ".join(words.visible(row.name) for row in near)
    if all(row.exceeds is None for row in near):
        return f"{said}; without standard errors chance cannot be told from more ({names})."
    return f"{said}; {names} {'is' if len(near) == 1 else 'are'} not significantly worse."


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> _listed(["heron"]), _listed(["heron", "otter", "wren"])
    ('heron', 'heron, otter and wren')
    """
    shown = [words.visible(name) for name in names]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
