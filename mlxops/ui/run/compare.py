"""A comparison of runs: tables in which each run is a letter, and their curves in one frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlxops import words
from mlxops.ui.charts import plot
from mlxops.ui.run.results import WHAT_IS_TIMED, shape_in_words
from mlxops.ui.terminal import tables
from mlxops.ui.terminal.console import is_unicode

if TYPE_CHECKING:
    from mlxops.jobs.run.comparison import (
        ComparedBenchmark,
        ComparedEvaluation,
        ComparedSetting,
        Comparison,
        Loss,
        LossDifference,
    )

_STYLES = ("cyan", "bold yellow", "green", "magenta", "red", "blue", "bright_cyan", "bright_magenta")
_HEIGHT = 14
_WIDEST = 100
_UNITS = {"iterations": "iterations", "tokens": "trained tokens", "time": "seconds at work"}
_SMALL = 0.001  # an error that three decimals say nothing of
_RULE = "* more than chance: above 1.96 standard errors of the difference (docs/runs.md)"


def comparison(found: Comparison, console: Console) -> None:
    """The whole comparison: who is who, settings, losses, curves, evaluations, benchmarks, speed and memory."""
    names = [row.name for row in found.runs]
    letters = ascii_uppercase[: len(names)]
    for letter, name, row in zip(letters, names, found.runs, strict=True):
        progress = f"{row.status}, {words.progress(row.iteration, row.target_iterations)}"
        console.print(Text(f"{letter}  {words.visible(name)}  ({progress})"), soft_wrap=True)
    for sentence in _sentences(found):
        console.print(sentence, soft_wrap=not console.is_terminal)
    if found.settings:
        _settings(found.settings, letters, console)
    _losses(found, letters, console)
    _curves(found, letters, console)
    if found.evaluations:
        _evaluations(found.evaluations, letters, console)
    if found.benchmarks:
        _benchmarks(found.benchmarks, letters, console)
    _speed(found, letters, console)


def _sentences(found: Comparison) -> list[str]:
    said = []
    if found.same_settings:
        said.append("the settings are the same in all of them")
    if found.same_losses:
        said.append("every loss is the same to the last bit")
    return [*said, *(f"take care: {caution}" for caution in found.cautions)]


def _settings(settings: Sequence[ComparedSetting], letters: str, console: Console) -> None:
    """A column for each run, else one for each setting, else each value with the runs that have it."""
    _heading("settings (* differs)", console)
    rows = [[row.name + ("*" if row.differs else ""), *map(_value, row.values)] for row in settings]
    columns = ("setting", *letters)
    if _fits(columns, rows, console):
        tables.table(columns, rows, console)
        return
    names, *of_runs = zip(*rows, strict=True)
    turned = [[letter, *values] for letter, values in zip(letters, of_runs, strict=True)]
    if _fits(("run", *names), turned, console):
        tables.table(("run", *names), turned, console)
        return
    for name, *values in rows:
        groups = [
            f"{value} ({', '.join(letter for letter, each in zip(letters, values, strict=True) if each == value)})"
            for value in dict.fromkeys(values)
        ]
        console.print(Text(f"{name} ", "dim").append(", ".join(groups), "none"), soft_wrap=not console.is_terminal)


def _losses(found: Comparison, letters: str, console: Console) -> None:
    """One table, or where that is too wide one of the final losses and one of the best."""
    _heading("losses", console)
    final, best = ([row for row in found.differences if row.loss == which] for which in ("final", "best"))
    of_final = [
        [
            letter,
            words.number(row.train_loss),
            _measured(row.validation_loss, row.validation_standard_error),
            _difference(difference),
        ]
        for letter, row, difference in zip(letters, found.runs, final, strict=True)
    ]
    of_best = [
        [
            _measured(row.best_validation_loss, row.best_standard_error),
            words.count(row.best_iteration),
            _difference(difference),
        ]
        for row, difference in zip(found.runs, best, strict=True)
    ]
    columns, columns_of_best = ("run", "train", "validation", "gap to best"), ("best", "at", "gap to best")
    rows = [[*one, *other] for one, other in zip(of_final, of_best, strict=True)]
    if _fits((*columns, *columns_of_best), rows, console):
        tables.table((*columns, *columns_of_best), rows, console)
    else:
        tables.table(columns, of_final, console)
        console.print()
        tables.table(
            ("run", *columns_of_best), [[letter, *row] for letter, row in zip(letters, of_best, strict=True)], console
        )
    if any(row.exceeds is not None and row.difference for row in found.differences):
        console.print(Text(_RULE, style="dim"), soft_wrap=True)


def _evaluations(evaluations: Sequence[ComparedEvaluation], letters: str, console: Console) -> None:
    """A column a run, or where that is too wide a line a run."""
    _heading("evaluations", console)
    scores = [[*map(_measured, row.values, row.standard_errors)] for row in evaluations]
    columns = ("kind", "data", "score", *letters)
    names = [[words.visible(text) for text in (row.kind, row.data, row.metric)] for row in evaluations]
    rows = [[*about, *row] for about, row in zip(names, scores, strict=True)]
    if _fits(columns, rows, console):
        tables.table(columns, rows, console)
        return
    for (kind, data, metric), row in zip(names, scores, strict=True):
        console.print(Text(f"{metric} ").append(f"({kind} of {data})", "dim"), soft_wrap=True)
        for letter, text in zip(letters, row, strict=True):
            console.print(Text(f"{letter}  {text}"), soft_wrap=True)


def _benchmarks(benchmarks: Sequence[ComparedBenchmark], letters: str, console: Console) -> None:
    """A table for each shape of a request and machine: the tokens per second of reading and of writing."""
    for (_, device, *shape), rows in groupby(benchmarks, key=_REQUEST):
        _heading(f"benchmarks: {shape_in_words(*shape)} ({words.visible(device)})", console)
        found = list(rows)
        lines = [
            [letter, *(_measured(row.values[place], row.standard_deviations[place]) for row in found)]
            for place, letter in enumerate(letters)
        ]
        columns = ("run", *(f"{WHAT_IS_TIMED[row.metric]} tokens/s" for row in found))
        tables.table(columns, lines, console)


_REQUEST = attrgetter("host", "device", "context_tokens", "prompt_tokens", "generated_tokens", "batch_size")


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> bool:
    """Whether a table has room for all of its cells."""
    widths = [max(cell_len(text) for text in column) for column in zip(columns, *rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1) <= console.width


def _curves(found: Comparison, letters: str, console: Console) -> None:
    unit = _UNITS[found.by]
    losses: tuple[Loss, Loss] = ("train_loss", "validation_loss")
    for name in losses:
        layers = [
            plot.Layer(
                points=[(place, plot.drawable(value)) for place, value in curve.of(name)],
                style=style,
                letter=letter,
                plain=letter,
            )
            for letter, style, curve in zip(letters, _STYLES, found.curves, strict=False)
            if any(value is not None for _, value in curve.of(name))
        ]
        if not layers:
            continue
        _heading(f"{name.replace('_', ' ')} by {unit}", console)
        width = max(min(console.width, _WIDEST), 24)
        for line in plot.draw(layers, width, _HEIGHT, unicode=is_unicode(console)):
            console.print(line, soft_wrap=True)
        places = found.places[name]
        if places:
            # validations are measured at iterations, whatever the comparison is by
            by = found.by if name == "train_loss" else "iterations"
            rows = [[_place(row.at, by), *map(words.number, row.values)] for row in places]
            tables.table((_UNITS[by], *letters), rows, console)


def _speed(found: Comparison, letters: str, console: Console) -> None:
    _heading("speed and memory", console)
    rows = []
    for letter, speed, memory in zip(letters, found.speed, found.memory, strict=True):
        by_attempt = [f"{words.count(each.tokens_per_second)}" for each in speed.attempts]
        rows.append(
            [
                letter,
                ", ".join(by_attempt) or words.NOTHING,
                words.duration(speed.seconds),
                words.size(memory.peak_memory),
                words.size(memory.active_memory),
            ]
        )
    tables.table(("run", "tokens/s, median of each attempt", "time", "peak memory", "active memory"), rows, console)


def _difference(row: LossDifference) -> str:
    if row.difference is None:
        return words.NOTHING
    if row.difference == 0:
        return "lowest"
    return _measured(row.difference, row.standard_error) + (" *" if row.exceeds else "")


def _measured(value: float | None, standard_error: float | None) -> str:
    """A value and how well it is known, a small error in one digit, as wide as all others.

    >>> _measured(5.951, 9.21e-5), _measured(5.951, 0.0421), _measured(None, 0.1)
    ('5.951 ± 9e-05', '5.951 ± 0.042', '-')
    """
    if value is None or standard_error is None:
        return words.number(value)
    error = f"{standard_error:.0e}" if 0 < standard_error < _SMALL else words.number(standard_error)
    return f"{words.number(value)} ± {error}"


def _value(value: Any) -> str:
    """A setting as a person reads it; a hash in its first letters."""
    if value is None:
        return words.NOTHING
    if isinstance(value, str) and len(value) == 64 and value.isalnum():
        return value[:12]
    return words.visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _place(place: float, by: str) -> str:
    return words.duration(place) if by == "time" else words.count(place)


def _heading(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, style="bold"))
