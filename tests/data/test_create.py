"""Files to start from: training takes every row, no two are alike, and nothing of a person's is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended

from mlxops import data
from mlxops.data import samples
from mlxops.data.formats import Unusable, parse
from mlxops.data.repetitions import Repetitions

Typed = Callable[..., Ended]
FORMATS: tuple[samples.SampleFormat, ...] = ("instruction", "text", "chat", "both", "preference")


def test_every_format_but_preferences_is_data_that_training_reads(mlxops: Typed) -> None:
    counts = {}
    for name in FORMATS[:-1]:
        code, out, _ = mlxops(f"create-training-data --format {name} --samples 40 --output {name} --json")
        splits = data.read(Path(name))
        counts[name] = (code, json.loads(out)["rows"]["train.jsonl"], len(splits.train), len(splits.valid))
        assert splits.notes == ()  # no row twice, none in two files

    assert counts == dict.fromkeys(FORMATS[:-1], (0, 32, 32, 4))


def test_rows_of_preferences_are_refused_by_their_name() -> None:
    (row,) = samples.rows("preference", 1, seed=0)

    assert sorted(row) == ["chosen", "prompt", "rejected"]
    with pytest.raises(Unusable, match="a row of preferences"):
        parse(dict(row), "f:1")


@pytest.mark.slow
def test_a_thousand_rows_are_all_different_and_come_from_the_seed() -> None:
    found = {name: [json.dumps(row) for row in samples.rows(name, 1000, seed=5)] for name in FORMATS}

    assert {name: len(set(rows)) for name, rows in found.items()} == dict.fromkeys(FORMATS, 1000)
    assert samples.rows("chat", 100, seed=5) == samples.rows("chat", 100, seed=5)
    assert samples.rows("chat", 100, seed=5) != samples.rows("chat", 100, seed=6)


@pytest.mark.slow
def test_no_row_is_nearly_the_same_as_another() -> None:
    for name in FORMATS:
        rows = samples.rows(name, 600, seed=8)
        records = [data.Record(origin=f"f:{number}", text=said(row)) for number, row in enumerate(rows, 1)]
        repetitions = Repetitions()

        found = [*repetitions.of_rows(records, [record.content for record in records]), *repetitions.nearly()]

        assert found == []


def said(row: samples.Row) -> str:
    turns = row.get("messages") or [{"role": "user", "content": words} for words in row.values()]
    return " ".join(turn["content"] for turn in turns if turn["role"] != "system")


def test_a_row_with_one_other_word_is_too_much_like_another() -> None:
    words = [f"word{number}" for number in range(30)]
    unlike = samples.Unlike([{"text": " ".join(words)}])

    taken = [unlike.add({"text": " ".join(each)}) for each in (words, [*words[:-1], "other"], words[::-1])]

    assert taken == [True, False, True]


def test_what_is_counted_in_an_answer_is_right() -> None:
    rows = samples.rows("instruction", 400, seed=1)

    prices = [row for row in rows if row["instruction"].startswith("One ")]
    found = [row["response"].split() for row in prices]
    assert len(prices) > 10
    assert all(int(words[0]) == int(words[3]) * int(words[5]) for words in found)


def test_the_same_command_again_changes_nothing(mlxops: Typed) -> None:
    mlxops("create-training-data --samples 10")
    before = {file.name: file.stat().st_mtime_ns for file in Path("data").iterdir()}

    code, out, _ = mlxops("create-training-data --samples 10")

    assert (code, out.splitlines()[0]) == (0, "data: already 10 rows")
    assert {file.name: file.stat().st_mtime_ns for file in Path("data").iterdir()} == before


def test_files_that_are_there_are_replaced_with_yes_only(mlxops: Typed) -> None:
    Path("data").mkdir()
    Path("data/train.jsonl").write_text("mine\n")

    refused = mlxops("create-training-data --samples 10")
    kept = Path("data/train.jsonl").read_text()
    agreed = mlxops("create-training-data --samples 10 --yes")

    assert (refused[0], kept, agreed[0]) == (3, "mine\n", 0)
    assert len(data.read(Path("data")).train) == 8


def test_every_row_of_the_page_is_one_of_the_formats_it_explains(mlxops: Typed) -> None:
    mlxops("create-training-data --samples 10")
    lines = [line for line in Path("data/README.md").read_text().splitlines() if line.startswith('{"')]

    assert len(lines) == 6
    assert [parse(json.loads(line), "f:1").origin for line in lines[:-1]] == ["f:1"] * 5


def test_wrong_requests_say_what_is_wrong(mlxops: Typed) -> None:
    Path("file").write_text("")

    assert mlxops("create-training-data --output file/data")[0] == 2
    assert mlxops("create-training-data --samples 2")[0] == 2
    assert mlxops("create-training-data --format chats")[0] == 2
