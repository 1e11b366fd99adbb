"""Scores of answers: ROUGE-L and chrF as the programs everyone uses give them, repetition, JSON.

`pairs.json` has 50 pairs with what rouge-score 0.1.2 (rougeL, F1, without stemming) and sacrebleu 2.6.0 (sentence chrF)
gave for them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlxops.evaluation import answers
from mlxops.evaluation.answers import GivenAnswer, ScoredAnswer

PAIRS = json.loads((Path(__file__).parent / "pairs.json").read_text(encoding="utf-8"))


def given(text: str, expected: str = "It is 3.", *, is_stopped: bool = True) -> GivenAnswer:
    return GivenAnswer(
        origin="a:1", prompt="What?", expected=expected, text=text, tokens=len(text), is_stopped=is_stopped
    )


def test_rouge_l_is_that_of_rouge_score() -> None:
    assert len(PAIRS) == 50
    assert [answers.rouge_l(pair["expected"], pair["answer"]) for pair in PAIRS] == pytest.approx(
        [pair["rouge_l"] for pair in PAIRS], abs=1e-12
    )


def test_chrf_is_that_of_sacrebleu() -> None:
    assert [answers.chrf(pair["expected"], pair["answer"]) for pair in PAIRS] == pytest.approx(
        [pair["chrf"] for pair in PAIRS], abs=1e-9
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Übung für Ångström", ["übung", "für", "ångström"]),
        ("東京は3月です", ["東", "京", "は", "3", "月", "で", "す"]),
        ("Привет, мир_два", ["привет", "мир", "два"]),
        ("- … !", []),
    ],
)
def test_words_are_those_of_any_script(text: str, words: list[str]) -> None:
    assert answers.words_of(text) == words


def test_rouge_l_of_long_texts_is_that_of_the_table_of_lengths() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    first, second = (generator.choice(list("abcdefgh"), size) for size in (300, 170))
    lengths = np.zeros((301, 171), int)
    for row, left in enumerate(first, start=1):
        for column, right in enumerate(second, start=1):
            lengths[row, column] = (
                lengths[row - 1, column - 1] + 1
                if left == right
                else max(lengths[row - 1, column], lengths[row, column - 1])
            )

    assert answers.rouge_l(" ".join(first), " ".join(second)) == pytest.approx(2 * lengths[-1, -1] / 470)


@pytest.mark.parametrize(
    ("text", "repeat"),
    [("", 0), ("one", 0), ("a b c d", 0), ("a a a a", 3), ("a b c x a b c", 3), ("to be or not to be", 2)],
)
def test_the_longest_repeat_is_found(text: str, repeat: int) -> None:
    assert answers.longest_repeat(text.split()) == repeat


@pytest.mark.parametrize(
    ("expected", "text", "valid"),
    [
        ('{"a": 1}', ' {"b": [2]} ', 1.0),
        ("[1]", "{}", 1.0),
        ('{"a": 1}', '{"a": 1', 0.0),
        ('{"a": 1}', "7", 0.0),
        ("7", "7", None),
        ("It is 7.", "{}", None),
        ("[" * 100_000, "[]", None),
    ],
)
def test_json_is_looked_for_where_it_is_expected(expected: str, text: str, valid: float | None) -> None:
    assert answers.valid_json(expected, text) == valid


def test_an_answer_is_scored_by_all_metrics() -> None:
    scores = answers.score(given("It is 3. \n", is_stopped=False))

    assert set(scores) == set(answers.BETTER)
    assert (scores["exact_match"], scores["rouge_l"], scores["stopped"]) == (1.0, 1.0, 0.0)
    assert scores["valid_json"] is None


def test_answers_to_the_same_rows_have_the_same_measures() -> None:
    first, second = ([ScoredAnswer(answer=each, scores=answers.score(each))] for each in (given("It is 3."), given("")))

    found = [{each.metric: each for each in answers.measures(scored)} for scored in (first, second)]

    assert list(found[0]) == list(found[1]) == [name for name in answers.BETTER if name != "valid_json"]
    assert [each["distinct_2"].weights.tolist() for each in found] == [[1.0], [0.0]]
