"""What the page of several runs says: what `run.compare` shows, with the curves over each other by every axis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from mlxops import words
from mlxops.ui.charts import figures
from mlxops.ui.report import phrases as sentences
from mlxops.ui.run.results import WHAT_IS_TIMED, measured, shape_in_words

if TYPE_CHECKING:
    from mlxops.jobs.run.comparison import (
        ComparedBenchmark,
        ComparedEvaluation,
        ComparedSetting,
        Comparison,
        Loss,
        LossDifference,
        LossesAt,
        RunLosses,
        RunMemory,
        RunSpeed,
    )
    from mlxops.registry import JsonObject

UNITS = {"iterations": "iterations", "tokens": "trained tokens", "time": "time at work"}


def content(comparisons: Mapping[str, Comparison]) -> JsonObject:
    """Every part of the page; an empty one is left out."""
    found = comparisons["iterations"]
    names = [words.visible(row.name) for row in found.runs]
    settings = [_setting(row) for row in found.settings]
    return {
        "title": " and ".join([", ".join(names[:-1]), names[-1]]),
        "sentence": sentences.which_is_lowest(found),
        "remarks": _remarks(found),
        "runs": list(zip(ascii_uppercase, names, map(_progress, found.runs), strict=False)),
        "letters": ascii_uppercase[: len(names)],
        "charts": [_chart(comparisons[by], by) for by in UNITS if by in comparisons and _is_spread(comparisons[by])],
        "losses": _losses(found),
        "is_marked": any(row.exceeds for row in found.differences),
        "differing": [row for row in settings if row["differs"]],
        "unknown": [row for row in settings if not row["differs"] and not row["is_known"]],
        "same": [row for row in settings if not row["differs"] and row["is_known"]],
        "evaluations": [_evaluation(row) for row in found.evaluations],
        "benchmarks": [_benchmark(row) for row in found.benchmarks],
        "speed": [_speed(*pair) for pair in zip(found.speed, found.memory, strict=True)],
    }


def _remarks(found: Comparison) -> list[str]:
    said = []
    if found.same_settings:
        said.append("The settings are the same in all of them.")
    if found.same_losses:
        said.append("Every loss is the same to the last bit.")
    return [*said, *(f"Take care: {caution}." for caution in found.cautions)]


def _progress(row: RunLosses) -> str:
    return f"{row.status}, {words.progress(row.iteration, row.target_iterations, ' of ')} iterations"


def _is_spread(found: Comparison) -> bool:
    """Whether there are losses, and the axis tells them apart: of runs without counted tokens all points stand at 0."""
    curves = [each for curve in found.curves for each in (curve.train_loss, curve.validation_loss)]
    is_counted = any(place for curve in curves for place, _ in curve)
    return is_counted and any(figures.has_points(curve) for curve in found.curves)


def _chart(found: Comparison, by: str) -> JsonObject:
    """The curves by one axis in two sizes, and both losses at the places that all runs have reached."""
    alt = sentences.chart_of_several(found, UNITS[by])
    sizes = (("wide", figures.WIDE), ("narrow", figures.NARROW))
    drawings = [(kind, figures.overlay(found, f"{by}-{kind}", size, alt)) for kind, size in sizes]
    return {
        "by": UNITS[by],
        "drawings": drawings,
        "places": [_side_by_side(name, rows, by) for name, rows in found.places.items() if rows],
    }


def _side_by_side(name: Loss, rows: Sequence[LossesAt], by: str) -> JsonObject:
    """Losses of all runs in a table; validations are measured at iterations, whatever the chart is by."""
    axis = by if name == "train_loss" else "iterations"
    return {
        "loss": name.replace("_", " "),
        "by": UNITS[axis],
        "rows": [(_place(row.at, axis), *map(words.number, row.values)) for row in rows],
    }


def _place(place: float, by: str) -> str:
    return words.duration(place) if by == "time" else words.count(place)


def _losses(found: Comparison) -> list[tuple[str, ...]]:
    final, best = ([row for row in found.differences if row.loss == which] for which in ("final", "best"))
    return [
        (
            letter,
            words.number(row.train_loss),
            measured(row.validation_loss, row.validation_standard_error),
            _difference(of_final),
            measured(row.best_validation_loss, row.best_standard_error),
            words.count(row.best_iteration),
            _difference(of_best),
        )
        for letter, row, of_final, of_best in zip(ascii_uppercase, found.runs, final, best, strict=False)
    ]


def _difference(row: LossDifference) -> str:
    if row.difference is None:
        return words.NOTHING
    if row.difference == 0:
        return "lowest"
    return measured(row.difference, row.standard_error) + (" *" if row.exceeds else "")


def _setting(row: ComparedSetting) -> JsonObject:
    return {
        "name": words.visible(row.name),
        "values": [_value(each) for each in row.values],
        "differs": row.differs,
        # what nobody knows of one run is not the same in it
        "is_known": None not in row.values,
    }


def _value(value: Any) -> str:
    """A setting as a person reads it; of a hash the first letters, which tell it from others."""
    if value is None:
        return words.NOTHING
    if isinstance(value, str):
        return words.visible(value[:12] if len(value) == 64 and value.isalnum() else value)
    return words.visible(json.dumps(value, ensure_ascii=False, default=str))


def _benchmark(row: ComparedBenchmark) -> tuple[str, ...]:
    shape = shape_in_words(row.context_tokens, row.prompt_tokens, row.generated_tokens, row.batch_size)
    about = (shape, words.visible(row.device), WHAT_IS_TIMED[row.metric])
    return (*about, *map(measured, row.values, row.standard_deviations))


def _evaluation(row: ComparedEvaluation) -> tuple[str, ...]:
    about: Sequence[Any] = (row.kind, row.data, row.metric)
    return (*map(words.visible, about), *map(measured, row.values, row.standard_errors))


def _speed(speed: RunSpeed, memory: RunMemory) -> tuple[str, ...]:
    return (
        ", ".join(words.count(each.tokens_per_second) for each in speed.attempts) or words.NOTHING,
        words.duration(speed.seconds),
        words.size(memory.peak_memory),
        words.size(memory.active_memory),
    )
