"""What came of a run in words and figures: its evaluations, what it answered before and after, verdicts on that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import words

if TYPE_CHECKING:
    from mlxops.registry import BenchmarkSummaryView, GivenAnswer, GivenVerdict, ScoredEvaluation

_VERDICTS = 5


def results(
    evaluations: Sequence[ScoredEvaluation], answers: Sequence[GivenAnswer], console: Console, now: datetime
) -> None:
    """The evaluations with their scores, and the answers of the newest one that has any; nothing where none is."""
    if evaluations:
        console.print()
        console.print(Text(f"evaluations ({len(evaluations)})", style="bold"))
        console.print(*(line for each in evaluations for line in _lines(each, now)), sep="\n", soft_wrap=True)
    if answers:
        console.print()
        console.print(Text("answers", style="bold"))
    for answer in answers:
        parts = [
            ("asked", answer["prompt"]),
            ("expected", answer["expected"]),
            ("base model", answer["base_answer"]),
            ("answered", answer["answer"]),
        ]
        for label, text in parts:
            if text is not None:
                line = Text().append(f"{label:>10} ", "dim").append(words.visible(text), "none")
                console.print(line, soft_wrap=not console.is_terminal)


def verdicts(given: Sequence[GivenVerdict], console: Console, now: datetime) -> None:
    """How many answers a person called good and bad, and the newest of them; nothing where none is."""
    if not given:
        return
    counts = ", ".join(f"{sum(each['verdict'] == kind for each in given):,} {kind}" for kind in ("good", "bad"))
    console.print()
    console.print(Text(f"verdicts ({counts})", style="bold"))
    for each in given[-_VERDICTS:]:
        where = "" if each["iteration"] is None else f", iteration {words.count(each['iteration'])}"
        line = Text(f"{each['verdict']:>10} ", "dim").append(words.visible(each["prompt"]), "none")
        line.append(f" → {words.visible(each['answer'])}", "none")
        note = f": {words.visible(each['note'])}" if each["note"] else ""
        line.append(f" ({words.age(each['created_at'], now)}{where}{note})", "dim")
        console.print(line, soft_wrap=not console.is_terminal)


def benchmarks(speeds: Sequence[BenchmarkSummaryView], console: Console, now: datetime) -> None:
    """How fast the run's model read and wrote, a line for each shape of a request; nothing where none was timed."""
    if not speeds:
        return
    console.print()
    console.print(Text("benchmarks", style="bold"))
    for (_, *shape), rows in groupby(speeds, key=_SHAPE):
        found = list(rows)
        line = Text(f"{words.age(found[0]['created_at'], now)}: {shape_in_words(*shape)}")
        for each in found:
            line.append(
                f", {WHAT_IS_TIMED[each['metric']]} {measured(each['mean'], each['standard_deviation'])} tokens/s"
            )
        console.print(line, soft_wrap=True)


WHAT_IS_TIMED = {"prompt_tokens_per_second": "read", "generation_tokens_per_second": "made"}
"""The speeds of a benchmark in a word."""

_SHAPE = itemgetter("id", "context_tokens", "prompt_tokens", "generated_tokens", "batch_size")


def shape_in_words(context: int, prompt: int, generated: int, batch: int) -> str:
    """The shape of a request.

    >>> shape_in_words(1024, 512, 128, 2)
    '512 prompt tokens, 128 made, after 1,024 of context, 2 at a time'
    """
    parts = [words.plural(prompt, "prompt token"), f"{words.count(generated)} made"]
    parts += [f"after {words.count(context)} of context"] if context else []
    parts += [f"{words.count(batch)} at a time"] if batch > 1 else []
    return ", ".join(parts)


def measured(value: float | None, standard_error: float | None) -> str:
    """A value and how well it is known.

    >>> measured(2.34567, 0.0421), measured(2.3, None)
    ('2.346 ± 0.042', '2.300')
    """
    text = words.number(value)
    return text if value is None or standard_error is None else f"{text} ± {words.number(standard_error)}"


def _lines(evaluation: ScoredEvaluation, now: datetime) -> list[Text]:
    asked = [
        f"{words.age(evaluation['created_at'], now)}: {words.visible(evaluation['kind'])}",
        f"{words.plural(evaluation['rows'], 'row')} of {words.visible(evaluation['data'])}",
    ]
    if evaluation["iteration"] is not None:
        asked.append(f"iteration {words.count(evaluation['iteration'])}")
    lines = [Text(", ".join(asked))]
    for score in evaluation["scores"]:
        line = Text(f"  {score['metric']} ", "dim").append(measured(score["value"], score["standard_error"]), "none")
        if score["base_value"] is not None:
            before = "base and adapter" if evaluation["kind"] == "fuse" else "base model"
            line.append(f", {before} {words.number(score['base_value'])}", "none")
        lines.append(line)
    return lines
