"""What lm-eval found, as measures and answers: a row for each question of each task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from mlxops.evaluation.answers import Reply, ScoredAnswer
from mlxops.evaluation.measures import Better, Measure, MeasuredScore, Ratio, score

Found = Mapping[str, Any]
"""What lm-eval's `evaluate` returns."""


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """The scores of some tasks, what they are of row by row where that is known, and the answers.

    A metric is called TASK/METRIC, or TASK/METRIC/FILTER. `rows` counts the questions, and `data_sha256` tells others
    from them.
    """

    scores: tuple[MeasuredScore, ...]
    measures: tuple[Measure, ...]
    answers: tuple[ScoredAnswer, ...]
    rows: int
    data_sha256: str


def read(found: Found, ratio: Ratio) -> TaskScores:
    """The scores of all tasks and groups of tasks, in the order in which lm-eval has them."""
    scores: list[MeasuredScore] = []
    measures: list[Measure] = []
    answers: list[ScoredAnswer] = []
    digest, rows = sha256(), 0
    for task, figures in found["results"].items():
        samples: Sequence[Found] = found["samples"].get(task, ())
        better: Mapping[str, bool | None] = found.get("higher_is_better", {}).get(task, {})
        for key, value in figures.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = f"{task}/{metric}" if kind == "none" else f"{task}/{metric}/{kind}"
            direction: Better | None = _BETTER.get(better.get(metric))
            measure = _measure(name, direction, [each for each in samples if each["filter"] == kind], task, metric)
            figure = float(value)
            measured = next((each for each in measure if _is_close(score(each, ratio).value, figure)), None)
            if measured is not None:
                measures.append(measured)
                scores.append(score(measured, ratio))
                continue
            finite = figure if math.isfinite(figure) else None
            count = len({each["doc_id"] for each in samples}) or int(figures.get("sample_len") or 0)
            scores.append(MeasuredScore(metric=name, better=direction, value=finite, standard_error=None, rows=count))
        questions = {each["doc_id"]: each for each in reversed(samples)}
        rows += len(questions)
        for number in sorted(questions):
            digest.update(f"{task}:{questions[number]['doc_hash']}\n".encode())
        answers += _answers(task, samples)
    return TaskScores(
        scores=tuple(scores),
        measures=tuple(measures),
        answers=tuple(answers),
        rows=rows,
        data_sha256=digest.hexdigest(),
    )


_BETTER: Mapping[bool | None, Better] = {True: "higher", False: "lower"}


def _is_close(ours: float | None, theirs: float) -> bool:
    return ours is not None and math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)


def _measure(name: str, better: Better | None, samples: Sequence[Found], task: str, metric: str) -> Iterable[Measure]:
    """What the figure of a metric may be of its rows: their mean, a perplexity, or bits per byte.

    Other figures, such as the F1 of a class, have no value for a row.
    """
    values = [each[metric] for each in samples if metric in each]
    if not values or len(values) < len(samples):
        return
    rows = [f"{task}:{each['doc_id'] + 1}" for each in samples]

    def measure(values: np.ndarray, weights: np.ndarray, *, is_exponential: bool = False) -> Measure:
        return Measure(
            metric=name, better=better, rows=rows, values=values, weights=weights, is_exponential=is_exponential
        )

    if all(isinstance(each, bool | int | float | np.number) for each in values):
        single, ones = np.array(values, np.float64), np.ones(len(values))
        yield measure(single, ones)
        yield measure(-single, ones, is_exponential=True)
    elif all(isinstance(each, tuple | list) and len(each) == 2 for each in values):
        try:
            pairs = np.array(values, np.float64)
        except (TypeError, ValueError):
            return
        yield measure(-pairs[:, 0], pairs[:, 1], is_exponential=True)
        yield measure(-pairs[:, 0] / math.log(2), pairs[:, 1])


def _answers(task: str, samples: Sequence[Found]) -> list[ScoredAnswer]:
    """The answers of a task, each with its scores by every filter; none where a text was only read."""
    of_row: dict[int, ScoredAnswer] = {}
    for each in samples:
        given = _reply(task, each)
        if given is None:
            continue
        suffix = "" if each["filter"] == "none" else f"/{each['filter']}"
        scores = {
            f"{metric}{suffix}": float(each[metric])
            for metric in each["metrics"]
            if isinstance(each.get(metric), bool | int | float | np.number)
        }
        before = of_row.get(each["doc_id"])
        of_row[each["doc_id"]] = ScoredAnswer(answer=given, scores={**(before.scores if before else {}), **scores})
    return [of_row[number] for number in sorted(of_row)]


def _reply(task: str, sample: Found) -> Reply | None:
    arguments, target = sample["arguments"], sample["target"]
    if not arguments or len(arguments[0]) < 2:
        return None
    prompt, origin = str(arguments[0][0]), f"{task}:{sample['doc_id'] + 1}"
    if isinstance(arguments[0][1], Mapping):
        texts = sample["filtered_resps"][0]
        text = texts if isinstance(texts, str) else str(texts[0]) if texts else ""
        return Reply(origin=origin, prompt=prompt, expected=str(target), text=text)
    # the choices behind the same question; a task may ask for each of them alone, too
    places = [place for place, each in enumerate(arguments) if each[0] == prompt]
    if len(places) == 1:
        places = [*range(len(arguments))]
    words = [str(arguments[place][1]) for place in places]
    if len(words) > 1 and len(set(words)) == 1:  # here the questions differ
        words = [str(arguments[place][0]) for place in places]
    likely = max(range(len(places)), key=lambda place: float(sample["filtered_resps"][places[place]][0]))
    is_place = isinstance(target, int) and not isinstance(target, bool) and len(words) > 1 and 0 <= target < len(words)
    expected = words[target] if is_place else str(target)
    if len(words) == 1:
        # one continuation is given, and the question is whether the model would write it
        text = words[0] if sample["filtered_resps"][0][1] else ""
        return Reply(origin=origin, prompt=prompt, expected=words[0].strip(), text=text.strip())
    return Reply(origin=origin, prompt=prompt, expected=expected.strip(), text=words[likely].strip())
