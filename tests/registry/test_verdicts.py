"""What a person thinks of an answer: kept with the conversation, changed by a second thought, kept beyond its run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from empty_registry import open_empty
from registry_rows import new_attempt, new_run, save

from mlxops import registry
from mlxops.registry import Registry

MESSAGES = [{"role": "user", "content": "Who? 👩"}, {"role": "assistant", "content": "You."}]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Registry]:
    with open_empty(tmp_path / "runs.db") as opened:
        yield opened


def record(db: Registry, **given: Any) -> int:
    """A good verdict of the base model, but for what is given."""
    about: dict[str, Any] = {
        "verdict": "good",
        "run_id": None,
        "iteration": None,
        "model": "models/m",
        "adapter_path": None,
        "messages": MESSAGES,
        "prompt": "Who? 👩",
        "answer": "You.",
        "config": {"temperature": 0.5},
    }
    return registry.record_verdict(db, **about | given)


def test_a_verdict_keeps_the_conversation_the_checkpoint_and_the_settings(db: Registry) -> None:
    run = new_run(db, "heron")
    save(db, run.id, new_attempt(db, run.id), 20)

    record(db, run_id=run.id, iteration=20, adapter_path="adapters/heron", note="short")

    (row,) = db.rows("SELECT * FROM verdict")
    assert (row["run"], row["iteration"], row["verdict"], row["note"]) == ("heron", 20, "good", "short")
    assert (json.loads(row["messages"]), json.loads(row["config"])) == (MESSAGES, {"temperature": 0.5})
    assert (row["model"], row["prompt"], row["answer"]) == ("models/m", "Who? 👩", "You.")


def test_a_second_verdict_on_an_answer_takes_the_place_of_the_first(db: Registry) -> None:
    first = record(db, note="no")
    again = record(db, verdict="bad", note=None, verdict_id=first)
    other = record(db)

    assert again == first
    assert db.rows("SELECT id, verdict, note FROM verdict ORDER BY id") == [
        {"id": first, "verdict": "bad", "note": None},
        {"id": other, "verdict": "good", "note": None},
    ]


def test_a_verdict_outlives_its_run(db: Registry) -> None:
    run = new_run(db, "heron")
    record(db, run_id=run.id, adapter_path="adapters/heron")

    registry.remove_runs(db, [run.id])

    assert db.rows("SELECT run, adapter_path FROM verdict") == [{"run": None, "adapter_path": "adapters/heron"}]
