"""Lists, pages, SQL and the monitor's state, through the front door over a real registry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from empty_registry import open_empty
from history_rows import begin, new_run

from mlxops import registry
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Ended = tuple[int, str, str]
Typed = Callable[[str], Ended]


@pytest.fixture
def runs() -> Invocation:
    """Two runs: `heron`, finished, and the newer `otter`, at work in this process."""
    root = Path.cwd()
    invocation = Invocation(project=Project.at(root))
    with open_empty(invocation.project.registry_path) as db:
        heron, otter = new_run(db, "heron", tags=["first"]), new_run(db, "otter", model="models/other")
        attempt = begin(db, heron)
        for iteration in (50, 100):
            registry.record_report(
                db,
                heron.id,
                attempt,
                iteration=iteration,
                epoch=1,
                trained_tokens=iteration * 10,
                metrics={"train_loss": 100 / iteration},
            )
        registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=100)
        begin(db, otter)
    return invocation


def test_the_runs_are_listed_newest_first(mlxops: Typed, runs: Invocation) -> None:
    code, out, err = mlxops("runs")

    assert (code, err) == (0, "")
    assert [line.split()[1:3] for line in out.splitlines()[2:]] == [["otter", "running"], ["heron", "completed"]]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", ["otter", "heron"]),
        ("--status completed", ["heron"]),
        ("--model other", ["otter"]),
        ("--tag first", ["heron"]),
        ("--text HER", ["otter", "heron"]),
        ("--text heron", ["heron"]),
    ],
)
def test_the_list_can_be_narrowed_and_read_by_programs(
    mlxops: Typed, runs: Invocation, options: str, names: list[str]
) -> None:
    code, out, _ = mlxops(f"runs --json {options}")

    assert code == 0
    assert [row["name"] for row in json.loads(out)] == names


def test_a_list_that_is_cut_says_so(mlxops: Typed, runs: Invocation) -> None:
    code, out, err = mlxops("runs --limit 1 --json")

    assert [row["name"] for row in json.loads(out)] == ["otter"]
    assert (code, err) == (0, "these are the newest 1: --limit shows more\n")


def test_a_run_is_shown_in_full(mlxops: Typed, runs: Invocation) -> None:
    code, out, _ = mlxops("run.show heron")
    details = json.loads(mlxops("run.show heron --json")[1])

    assert code == 0
    assert "inv lora --model tiny" in out
    assert details["run"]["status"] == "completed"
    assert [row["train_loss"] for row in details["curve"]] == [2.0, 1.0]


def test_a_run_that_is_not_there_suggests_the_nearest(mlxops: Typed, runs: Invocation) -> None:
    assert mlxops("run.show herom") == (2, "", "no run 'herom'\nhint: did you mean 'heron'?\n")


@pytest.mark.slow
def test_a_dead_attempt_is_closed_by_whoever_looks(mlxops: Typed) -> None:
    program = (
        "from pathlib import Path; from history_rows import *; db = registry.open_registry(Path('runs.db')); "
        "begin(db, new_run(db, 'gone')); import os; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)

    (row,) = json.loads(mlxops("runs --json")[1])

    assert row["status"] == "interrupted"


@pytest.mark.parametrize("command", ["runs", "run.show heron", "monitor --once", "sql 'select 1'"])
def test_looking_at_a_registry_that_cannot_be_written_works(
    mlxops: Typed, runs: Invocation, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)

    assert mlxops(command)[0] == 0


def test_without_a_registry_there_are_no_runs_and_none_is_made(mlxops: Typed) -> None:
    assert mlxops("runs --json") == (0, "[]\n", "")
    assert mlxops("monitor --json") == (0, "null\n", "")
    assert not Path("runs.db").exists()


# SQL -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "out"),
    [
        ("'select name from runs order by 1' --format csv", "name\nheron\notter\n"),
        ("'select name from runs order by 1' --format jsonl", '{"name": "heron"}\n{"name": "otter"}\n'),
        ("'select 1 as one' --json", '[{"one": 1}]\n'),
        ("'select :a as a, :b as b' --param a=1 --param 'b=x, y=z' --format jsonl", '{"a": 1, "b": "x, y=z"}\n'),
        ("'select 1e400 as big, :x as x' --param x=-2.5e-1 --format jsonl", '{"big": null, "x": -0.25}\n'),
    ],
)
def test_sql_is_answered_in_the_format_asked_for(mlxops: Typed, runs: Invocation, options: str, out: str) -> None:
    assert mlxops(f"sql {options}") == (0, out, "")


def test_every_saved_query_is_listed_with_its_question(mlxops: Typed) -> None:
    listed = json.loads(mlxops("sql .queries --json")[1])

    assert [row["name"] for row in listed] == [f"@{each.name}" for each in registry.saved_queries()]
    assert all(row["question"].endswith("?") for row in listed)


def test_the_schema_lists_views_and_tables(mlxops: Typed, runs: Invocation) -> None:
    names = [row["name"] for row in json.loads(mlxops("sql .schema --json")[1])]

    assert {"run_summary", "runs", "metrics"} <= set(names)


def test_a_saved_query_takes_its_parameters(mlxops: Typed, runs: Invocation) -> None:
    assert mlxops("sql @attempts --param run=heron --format jsonl")[0] == 0


@pytest.mark.parametrize(
    ("text", "code", "err"),
    [
        ("@settings", 2, "@settings needs a value for one, other\nhint: `--param one=VALUE` `--param other=VALUE`\n"),
        (
            "@attempts --param ran=x",
            2,
            "@attempts has no parameter 'ran'\nhint: did you mean 'run'?\n",
        ),
        ("@atempts", 2, "no saved query 'atempts'\nhint: did you mean 'attempts'?\n"),
        (
            "'select 1' --param x",
            2,
            "--param takes name=value, not 'x'\nhint: `mlx-toolkit sql --help` explains its options\n",
        ),
        (
            ".shema",
            2,
            "'.shema' is not known\n"
            "hint: `mlx-toolkit sql .queries` and `mlx-toolkit sql .schema` list what there is\n",
        ),
    ],
)
def test_a_wrong_question_says_what_to_type(mlxops: Typed, runs: Invocation, text: str, code: int, err: str) -> None:
    assert mlxops(f"sql {text}") == (code, "", err)


def test_sql_cannot_write(mlxops: Typed, runs: Invocation) -> None:
    assert mlxops("sql 'delete from runs'")[0] == 3


# the monitor ---------------------------------------------------------------------------------------------------------


def test_the_monitor_shows_the_run_at_work_unless_told_another(mlxops: Typed, runs: Invocation) -> None:
    assert "otter" in mlxops("monitor")[1].splitlines()[0]
    assert "heron" in mlxops("monitor --run heron --once")[1].splitlines()[0]
    assert json.loads(mlxops("train-monitor --json")[1])["run"]["name"] == "otter"
