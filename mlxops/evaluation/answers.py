"""How good answers are, each by itself: against an expected one, how much it repeats itself, and how it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from mlxops.evaluation.measures import Better, Measure

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

Scores = Mapping[str, float | None]
"""A score by its name; None where the metric says nothing of an answer."""

BETTER: Mapping[str, Better | None] = {
    "exact_match": "higher",
    "rouge_l": "higher",
    "chrf": "higher",
    "valid_json": "higher",
    "stopped": "higher",
    "longest_repeat": "lower",
    "distinct_1": None,
    "distinct_2": None,
    "answer_tokens": None,
}
"""The scores of an answer, and which direction is better; None where that depends on the task."""

# scripts that write no blanks between words: each character is a word
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|(?:(?![{_IDEOGRAPHS}])[^\\W_])+")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model said to the question of a row, and what was expected."""

    origin: str
    prompt: str
    expected: str
    text: str


@dataclass(frozen=True, kw_only=True)
class GivenAnswer(Reply):
    """An answer of so many tokens to a row; `is_stopped` is whether the model ended it by itself."""

    tokens: int
    is_stopped: bool


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """An answer with its scores."""

    answer: Reply
    scores: Scores


def score(answer: GivenAnswer) -> dict[str, float | None]:
    """All scores of an answer."""
    words = words_of(answer.text)
    return {
        "exact_match": float(answer.text.strip() == answer.expected.strip()),
        "rouge_l": rouge_l(answer.expected, answer.text),
        "chrf": chrf(answer.expected, answer.text),
        "valid_json": valid_json(answer.expected, answer.text),
        "stopped": float(answer.is_stopped),
        "longest_repeat": float(longest_repeat(words)),
        "distinct_1": distinct(words, 1),
        "distinct_2": distinct(words, 2),
        "answer_tokens": float(answer.tokens),
    }


def measures(answers: Sequence[ScoredAnswer], better: Mapping[str, Better | None] = BETTER) -> list[Measure]:
    """The mean of each score over the answers that have it.

    The answers of two models to the same rows have the same measures: only `valid_json`, which the rows alone decide
    on, is left out where no answer has it.
    """
    found = []
    for metric, direction in better.items():
        values = [each.scores.get(metric) for each in answers]
        if metric == "valid_json" and all(value is None for value in values):
            continue
        found.append(
            Measure(
                metric=metric,
                better=direction,
                rows=[each.answer.origin for each in answers],
                values=np.array([value or 0.0 for value in values], dtype=np.float64),
                weights=np.array([float(value is not None) for value in values]),
            )
        )
    return found


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, in Chinese and Japanese each character.

    >>> words_of("It's 3.5 km.")
    ['it', 's', '3', '5', 'km']
    """
    return _WORD.findall(text.lower())


def rouge_l(expected: str, answer: str) -> float:
    """ROUGE-L (Lin 2004): the F1 of the longest common subsequence of words, from 0 to 1; without stemming.

    >>> rouge_l("the cat sat on the mat", "the cat on the mat sat")
    0.8333333333333334
    """
    first, second = words_of(expected), words_of(answer)
    common = _common_subsequence(first, second)
    return 2 * common / (len(first) + len(second)) if common else 0.0


def chrf(expected: str, answer: str) -> float:
    """chrF (Popović 2015) of one answer by sacrebleu, from 0 to 100: the F2 of character n-grams up to 6."""
    value: float = _chrf().sentence_score(answer, [expected]).score
    return value


def valid_json(expected: str, answer: str) -> float | None:
    """Whether an answer is JSON, where the expected one is an object or a list; None elsewhere.

    >>> valid_json('{"a": 1}', '{"a": '), valid_json("yes", "yes")
    (0.0, None)
    """
    if not isinstance(_json(expected), dict | list):
        return None
    return float(isinstance(_json(answer), dict | list))


def distinct(words: Sequence[str], length: int) -> float | None:
    """The share of different ones among the sequences of so many words (Li et al. 2016); None where there are none.

    >>> distinct(["a", "b", "a", "b"], 2)
    0.6666666666666666
    """
    there = _sequences(words, length)
    return len(set(there)) / len(there) if there else None


def longest_repeat(words: Sequence[str]) -> int:
    """The words of the longest sequence that stands in a text twice or more, and may overlap itself.

    >>> longest_repeat("we are here and we are there".split())
    2
    """
    # a sequence that repeats has a shorter one in it that repeats, so its length can be halved upon
    low, high = 0, max(len(words) - 1, 0)
    while low < high:
        middle = (low + high + 1) // 2
        there = _sequences(words, middle)
        if len(set(there)) < len(there):
            low = middle
        else:
            high = middle - 1
    return low


def _sequences(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, one word of `second` at a time over the bits of a number.

    Each 0 of `row` is a word of `first` with which a longer common subsequence ends (Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matching = row & places.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(first) - row.bit_count()


def _json(text: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
