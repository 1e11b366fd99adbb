"""The size of a training that data.check tells is the size that the training has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended
from known_runs import train
from tokenizers_for_tests import TOOLS, tiny_tokenizer

from mlxops import data, registry
from mlxops.config import LoraConfig
from mlxops.data import samples
from mlxops.jobs.data.figures import TokenCounts
from mlxops.jobs.train.prepare import prepare
from mlxops.projects.project import Project

Typed = Callable[..., Ended]


@pytest.fixture
def model(tiny_model: Path) -> str:
    Path("models").mkdir()
    Path("models/tiny").symlink_to(tiny_model)
    return "tiny"


def write(name: str, rows: list[Any]) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def figures(mlxops: Typed, typed: str) -> dict[str, Any]:
    return json.loads(mlxops(f"data.check {typed} --model tiny --no-near --json")[1])["tokens"]


@pytest.mark.parametrize("valid", [None, [], [{"text": "held out"}]])
def test_rows_tokens_and_iterations_are_those_that_lora_plans(
    mlxops: Typed, model: str, valid: list[Any] | None
) -> None:
    write("data/train.jsonl", [*samples.rows("chat", 60, seed=1), *samples.rows("text", 10, seed=1)])
    if valid is not None:
        write("data/valid.jsonl", valid)

    found = figures(mlxops, "data --batch-size 3 --max-seq-length 300")

    config = LoraConfig(model="tiny", data="data", batch_size=3, max_seq_length=300)
    prepared = prepare(Project.at(Path.cwd()), config, lambda *_: None)
    assert (found["rows"], found["batches_per_epoch"]) == (len(prepared.train.rows), len(prepared.plan))
    assert found["total_tokens"] == prepared.train.total_tokens
    assert found["trained_tokens"] == prepared.train.trained_tokens


def test_the_tokens_of_all_roles_are_those_of_the_rows(mlxops: Typed, model: str) -> None:
    write("rows.jsonl", [*samples.rows("chat", 30, seed=2), *samples.rows("text", 5, seed=2)])
    write("short.jsonl", [{"text": "word " * 40}])

    found, cut = figures(mlxops, "rows.jsonl"), figures(mlxops, "short.jsonl --max-seq-length 7")

    assert set(found["by_role"]) == {"system", "user", "assistant", "text", "template"}
    assert sum(found["by_role"].values()) == found["total_tokens"]
    assert found["by_role"]["assistant"] < found["trained_tokens"]  # which has the ends of turns
    assert cut["by_role"] == {"text": 7} or cut["by_role"] == {"text": 7, "template": 0}


def test_every_token_of_a_conversation_is_counted_for_the_one_who_said_it() -> None:
    tokenizer = tiny_tokenizer(TOOLS)
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    said = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?\n"},
        {"role": "assistant", "content": "It is", "tool_calls": [call]},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "It is"},
    )
    preparation = data.Preparation(tokenizer, mask_prompt=True, with_words=True)

    (part,) = preparation.parts([[data.Record(origin="f:1", messages=said)]])

    ((row, words),) = [(prepared.row, prepared.words) for prepared in part.rows]
    texts = [(role, tokenizer.decode(row.tokens[start:stop])) for role, start, stop in words]
    assert texts == [
        ("system", "Be brief."),
        ("user", "What is it?"),
        ("assistant", 'It is{"name": "add", "arguments": {}}<|call_end|><|im_end|>'),
        ("assistant", "It is"),
    ]
    counts = TokenCounts()
    counts.add(row, words, limit=1000)
    assert sum(counts.by_role.values()) == row.length


def test_the_time_of_an_epoch_is_that_of_earlier_runs_on_this_machine(
    mlxops: Typed, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("rows.jsonl", [{"text": f"row {number}"} for number in range(40)])
    before = figures(mlxops, "rows.jsonl")
    with registry.open_registry(Path("runs.db")) as db:
        train(db, "one", [(10, 2.0), (20, 1.5)], speed=40.0)
        train(db, "two", [(10, 2.0)], speed=60.0)
        train(db, "other-model", [(10, 2.0)], speed=9000.0, model="models/other")
        monkeypatch.setattr("mlxops.registry.attempts.this_host", lambda: "another-machine")
        train(db, "elsewhere", [(10, 2.0)], speed=9000.0)

    after, shown = figures(mlxops, "rows.jsonl"), mlxops("data.check rows.jsonl --model tiny")[1]

    assert (before["seconds_per_epoch"], before["tokens_per_second"]) == (None, None)
    assert after["tokens_per_second"] == 50.0
    assert after["seconds_per_epoch"] == after["trained_tokens"] / 50
    assert "at 50 trained tokens per second, as in earlier runs" in shown


def test_a_registry_that_cannot_be_read_costs_the_time_alone(mlxops: Typed, model: str) -> None:
    write("rows.jsonl", [{"text": f"row {number}"} for number in range(10)])
    Path("runs.db").write_bytes(b"no database at all" * 100)

    code, out, _ = mlxops("data.check rows.jsonl --model tiny --json")

    found = json.loads(out)
    assert (code, found["tokens"]["seconds_per_epoch"]) == (0, None)
    assert [note for note in found["notes"] if note.startswith("the time is unknown: ")]
