"""The memory that a model takes, beside the trainings at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from history_rows import begin, new_run

from mlxops import registry
from mlxops.config import BenchmarkConfig, ChatConfig, QueryConfig, ServeConfig, TestConfig
from mlxops.jobs.eval import benchmark, chat, loading, memory, query, serve, test
from mlxops.projects import machine, project
from mlxops.projects.invocation import Invocation

Notes = Callable[[int], tuple[str, ...]]


@pytest.fixture
def notes(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    """What is said about the tiny model where so many bytes are free."""

    def read(free: int) -> tuple[str, ...]:
        monkeypatch.setattr(machine, "free_memory", lambda: free)
        invocation = Invocation(project=project.find(tmp_path))
        return memory.notes(invocation, loading.choose(invocation, model=str(tiny_model)))

    return read


def test_a_model_that_fits_is_no_matter(notes: Notes) -> None:
    assert notes(1 << 40) == ()


def test_a_model_that_does_not_fit_is_told(notes: Notes) -> None:
    (note,) = notes(1000)

    assert note.startswith("the model takes about ")
    assert note.endswith(" of memory for 2,048 tokens, and 1.0 kB are free: a quantized model takes less")


def test_a_training_at_work_is_told_with_what_it_still_takes(notes: Notes, tmp_path: Path) -> None:
    with registry.open_registry(tmp_path / "runs.db") as db:
        run = new_run(db, "heron")
        attempt = begin(db, run)
        before = notes(1 << 40)
        metrics = {"peak_memory": float(1 << 41)}
        registry.record_report(db, run.id, attempt, iteration=1, epoch=0, trained_tokens=1, metrics=metrics)
    after = notes(1 << 40)

    assert before[0].endswith("; 1.1 TB are free beside the training of heron")
    assert after[0].endswith(
        "beside the training of heron, which takes up to 2.2 TB more: a quantized model takes less"
    )


def test_every_task_that_loads_a_model_tells_of_its_memory_before(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    here, model, rows = Invocation(project=project.find(tmp_path)), str(tiny_model), tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Where?", "completion": "Here."}\n')
    told: dict[str, list[str]] = {name: [] for name in ("chat", "query", "benchmark")}

    chat.open_chat(here, ChatConfig(model=model), told["chat"].append)
    query.open_query(here, QueryConfig(model=model, prompt="hi"), told["query"].append)
    benchmark.plan(here, BenchmarkConfig(model=model, generation_tokens=[2]), told["benchmark"].append)
    told["serve"] = [*serve.plan(here, ServeConfig(model=model)).notes]
    told["test"] = [*test.plan(here, TestConfig(model=model, data=str(rows)), lambda *_: None).notes]

    assert [name for name, notes in told.items() if notes and notes[0].startswith("the model takes about ")] == [*told]
