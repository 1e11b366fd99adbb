"""Rows that repeat others are found, whatever their number, and little of each row stays."""

from __future__ import annotations

import tracemalloc

import pytest

from mlxops.data.formats import Record
from mlxops.data.repetitions import Repetitions

WORDS = [f"word{number}" for number in range(5000)]


def text(*words: str, origin: str) -> Record:
    return Record(origin=origin, text=" ".join(words))


def found(*records: Record, near: bool = True) -> list[tuple[str, str, str]]:
    repetitions = Repetitions(near=near)
    exact = list(repetitions.of_rows(records, [record.content for record in records]))
    return [(each.origin, each.kind, each.message) for each in (*exact, *repetitions.nearly())]


def long_row(number: int, *, changed: int = 0) -> list[str]:
    """Sixty words of a row of its own; the first `changed` are others."""
    words = [WORDS[(61 * number + 7 * place) % len(WORDS)] for place in range(60)]
    return [*[f"other{place}" for place in range(changed)], *words[changed:]]


def test_a_row_is_named_with_the_first_that_says_the_same() -> None:
    records = [text("a", origin="f:1"), text("b", origin="f:2"), text("a", origin="f:7"), text("a", origin="f:9")]

    assert found(*records) == [
        ("f:7", "exact duplicates", "the same as f:1"),
        ("f:9", "exact duplicates", "the same as f:1"),
    ]


def test_rows_of_two_files_and_of_arrays_keep_their_names() -> None:
    records = [text("a", origin="train.jsonl:12"), text("b", origin="v.json row 3"), text("a", origin="v.json row 4")]

    assert found(*records) == [("v.json row 4", "the same row in two files", "the same as train.jsonl:12")]


def test_a_row_with_a_few_other_words_is_nearly_the_same() -> None:
    records = [text(*long_row(number), origin=f"f:{number}") for number in range(1, 40)]
    changed = [text(*long_row(number, changed=2), origin=f"f:{100 + number}") for number in (3, 30)]

    assert found(*records, *changed) == [
        ("f:103", "near duplicates", "nearly the same as f:3"),
        ("f:130", "near duplicates", "nearly the same as f:30"),
    ]
    assert found(*records, *changed, near=False) == []


def test_rows_with_many_other_words_and_short_rows_are_not_alike() -> None:
    far = [text(*long_row(1), origin="f:1"), text(*long_row(1, changed=30), origin="f:2")]
    short = [text("to", "be", "or", "not", number, origin=f"f:{number}") for number in ("3", "4")]

    assert found(*far, *short) == []


def test_case_and_white_space_make_no_difference_to_likeness() -> None:
    words = " ".join(long_row(1))

    assert [each[:2] for each in found(Record(origin="f:1", text=words), Record(origin="f:2", text=words.upper()))] == [
        ("f:2", "near duplicates")
    ]


@pytest.mark.slow
def test_among_thousands_of_rows_all_repetitions_are_found_and_few_bytes_of_each_stay() -> None:
    repetitions = Repetitions(near=True)
    parts = [
        [text(str(row), *long_row(row)[:12], origin=f"f:{row + 1}") for row in range(start, start + 500)]
        for start in range(0, 4_000, 500)
    ]
    again = [Record(origin=f"f:{4_001 + place}", text=part[7].text) for place, part in enumerate(parts)]
    list(repetitions.of_rows(parts[0], [record.content for record in parts[0]]))  # imports, and the first table

    tracemalloc.start()
    exact = [each for part in parts[1:] for each in repetitions.of_rows(part, [record.content for record in part])]
    exact += repetitions.of_rows(again, [record.content for record in again])
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert [each.message for each in exact] == [f"the same as {part[7].origin}" for part in parts]
    assert grown < 120 * 4_000
