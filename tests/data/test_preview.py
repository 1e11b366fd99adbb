"""The preview shows what training trains: the same tokens, the same spans, the same text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended

from mlxops.config import LoraConfig
from mlxops.jobs.train.prepare import prepare
from mlxops.projects.project import Project

Typed = Callable[..., Ended]
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "A\nB"},
            {"role": "assistant", "content": "def f():\n\treturn '👩‍🚀'\n"},
        ]
    },
    {"prompt": "قل مرحبا", "completion": "مرحبا\u2028يا صديقي"},
    {"text": "line\u2028separator, paragraph\u2029, next\x85line, \x0bvertical\ttab\r\nand end"},
    {"messages": [{"role": role, "content": f"{role} {turn}"} for turn in (1, 2) for role in ("user", "assistant")]},
]


@pytest.fixture
def rows(tiny_model: Path) -> Path:
    Path("models").mkdir()
    Path("models/tiny").symlink_to(tiny_model)
    file = Path("rows.jsonl")
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    Path("valid.jsonl").write_text(json.dumps({"text": "held out"}) + "\n")
    Path("data").mkdir()
    file.rename("data/train.jsonl")
    Path("valid.jsonl").rename("data/valid.jsonl")
    return Path("data")


def test_tokens_and_spans_are_those_of_the_training(mlxops: Typed, rows: Path) -> None:
    prepared = prepare(Project.at(Path.cwd()), LoraConfig(model="tiny", data="data"), lambda *_: None)

    shown = [
        json.loads(mlxops(f"data.preview --model tiny --json --row {line}")[1])["rows"][0] for line in (1, 2, 3, 4)
    ]

    assert [row["tokens"] for row in shown] == [row.tokens.tolist() for row in prepared.train.rows]
    assert [row["spans"] for row in shown] == [[list(span) for span in row.spans] for row in prepared.train.rows]
    assert [row["trained_tokens"] for row in shown] == [row.trained for row in prepared.train.rows]


def test_every_character_of_a_row_comes_through(mlxops: Typed, rows: Path) -> None:
    shown = [json.loads(mlxops(f"data.preview --model tiny --json --row {line}")[1])["rows"][0] for line in (1, 2, 3)]

    trained = ["".join(piece["text"] for piece in row["pieces"] if piece["is_trained"]) for row in shown]
    said = [ROWS[0]["messages"][1]["content"], ROWS[1]["completion"], ROWS[2]["text"]]
    assert [text.startswith(words) for text, words in zip(trained, said, strict=True)] == [True] * 3


def test_what_is_trained_stands_in_brackets_without_colour(mlxops: Typed, rows: Path) -> None:
    code, out, _ = mlxops("data.preview --model tiny --row 4")

    assert code == 0
    assert out.count("⟦assistant ") == out.count("<|im_end|>⟧") == 2
    assert "turn 2 starts where the generation prompt ends (rule 1)" in out
    assert "\x1b" not in out


def test_a_row_that_is_too_long_shows_where_it_is_cut(mlxops: Typed, rows: Path) -> None:
    whole = json.loads(mlxops("data.preview --model tiny --row 4 --json")[1])["rows"][0]
    limit = whole["length"] - 3

    out = mlxops(f"data.preview --model tiny --row 4 --max-seq-length {limit}")[1]
    cut = json.loads(mlxops(f"data.preview --model tiny --row 4 --json --max-seq-length {limit}")[1])["rows"][0]

    assert f"--- cut at {limit:,} tokens (--max-seq-length): 3 tokens left out ---" in out
    assert (cut["kept_tokens"], cut["length"]) == (limit, whole["length"])
    assert "".join(piece["text"] for piece in cut["pieces"]) == "".join(piece["text"] for piece in whole["pieces"])


def test_rows_are_found_by_line_and_by_name(mlxops: Typed, rows: Path) -> None:
    origins = [
        json.loads(mlxops(f"data.preview --model tiny --json --row {name}")[1])["rows"][0]["origin"]
        for name in ("2", "data/valid.jsonl:1", "valid.jsonl:1")
    ]

    assert origins == ["data/train.jsonl:2", "data/valid.jsonl:1", "data/valid.jsonl:1"]


def test_wrong_requests_end_with_2_and_say_why(mlxops: Typed, rows: Path) -> None:
    Path("bad.jsonl").write_text("{\n")
    ended = {
        typed: mlxops(f"data.preview {typed}")
        for typed in ("--model tiny --row 99", "--model none", "data", "bad.jsonl --model tiny", "nowhere --model tiny")
    }

    assert {typed: code for typed, (code, _, _) in ended.items()} == dict.fromkeys(ended, 2)
    assert ended["--model tiny --row 99"][2].startswith("there is no row '99'\n")
