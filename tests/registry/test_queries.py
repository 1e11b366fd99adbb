"""Promise 9, and what reads: views, lists and curves."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from empty_registry import open_empty
from registry_rows import age_heartbeats, new_attempt, new_run, report, save, status

from mlxops import registry
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.registry import Registry
from mlxops.resources import folder

VIEWS = sorted(file.stem for file in (folder("db") / "views").glob("*.sql"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a project's runs" / "rüns 1.db"


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with open_empty(path) as opened:
        yield opened


# -- promise 9 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs",
        "INSERT INTO tags VALUES (1, 'x')",
        "-- a comment\nUPDATE runs SET name = 'x'",
        "WITH one AS (SELECT 1) DELETE FROM tags",
        "DROP VIEW metric",
        "CREATE TEMP TABLE x (y)",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "BEGIN IMMEDIATE",
        "SELECT load_extension('x')",
        "REPLACE INTO tags VALUES (1, 'x')",
    ],
)
def test_sql_cannot_write(db: Registry, path: Path, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new_run(db)
    monkeypatch.chdir(path.parent)
    before = list(db.connection.iterdump()), sorted(path.parent.iterdir())

    with pytest.raises(Refused, match="only reads"):
        registry.query(path, sql)

    assert (list(db.connection.iterdump()), sorted(path.parent.iterdir())) == before


def test_a_registry_opened_for_reading_cannot_write(db: Registry, path: Path) -> None:
    new_run(db)

    with registry.open_read_only(path) as reading, pytest.raises(Failed, match="read-only"):
        registry.set_tags(reading, 1, ["x"])


def test_the_views_cannot_be_written(db: Registry) -> None:
    refused = []
    for view in VIEWS:
        with pytest.raises(sqlite3.OperationalError, match="is a view"):
            db.connection.execute(f"DELETE FROM {view}")
        refused.append(view)

    assert refused == VIEWS


# -- views ----------------------------------------------------------------------------------------------------------


def test_the_sqlite3_program_can_select_from_every_view(db: Registry, path: Path) -> None:
    fill(db)

    shown = {
        view: subprocess.run(
            ["sqlite3", "-json", path, f"SELECT * FROM {view}"], capture_output=True, text=True, check=True
        ).stdout
        for view in VIEWS
    }

    assert {view: json.loads(out or "[]") for view, out in shown.items()} == {
        view: db.rows(f"SELECT * FROM {view}") for view in VIEWS
    }


def test_the_readme_documents_every_column_of_every_view(db: Registry) -> None:
    readme = (folder("db") / "README.md").read_text()
    sections = {view: readme.partition(f"### {view}\n")[2].partition("\n#")[0] for view in VIEWS}

    missing = [
        (view, row[1])
        for view, section in sections.items()
        for row in db.connection.execute(f"PRAGMA table_info({view})")
        if f"`{row[1]}`" not in section
    ]
    assert missing == []


@pytest.mark.parametrize("view", ["metric", "loss_curve"])
def test_asking_a_view_for_one_run_reads_a_range_of_the_key(db: Registry, view: str) -> None:
    plan = db.rows(f"EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE run = 'heron'")

    points = [step["detail"] for step in plan if "metrics" in step["detail"] or "train " in step["detail"]]
    assert points
    assert [step for step in points if "SCAN" in step] == []


def test_a_view_whose_text_changed_is_made_anew_at_the_next_opening(db: Registry, path: Path) -> None:
    db.connection.execute("DROP VIEW metric")
    db.connection.execute("CREATE VIEW metric AS SELECT 1 AS one")
    db.connection.execute("CREATE VIEW a_persons_own AS SELECT 2 AS two")

    with registry.open_registry(path) as again:
        assert again.rows("SELECT * FROM metric") == []
        assert again.rows("SELECT * FROM a_persons_own") == [{"two": 2}]


def test_run_summary_tells_progress_and_losses_and_rates_of_the_newest_attempt(db: Registry) -> None:
    run = fill(db)

    (row,) = registry.list_runs(db, text="heron")
    expected = {
        "status": "running", "iteration": 40, "target_iterations": 100, "progress": 0.4, "epoch": 1,
        "trained_tokens": 400, "train_loss": 1.0, "validation_loss": 2.0, "best_train_loss": 1.0,
        "best_validation_loss": 1.5, "best_iteration": 20, "tokens_per_second": 40.0, "attempts": 2, "checkpoints": 2,
        "parent": "parent", "tags": "a,b", "adapter_path": "adapters/heron", "id": run,
    }  # fmt: skip
    assert {column: row[column] for column in expected} == expected


def test_rates_never_mix_attempts(db: Registry) -> None:
    run = fill(db)
    db.connection.execute(
        "UPDATE attempts SET iterations_per_second = 2.0, expected_end_at = '2999-01-01T00:00:00.000Z'"
    )

    new_attempt(db, run, 40)
    (row,) = registry.list_runs(db, text="heron")
    rates = (row["tokens_per_second"], row["iterations_per_second"], row["eta_seconds"])
    assert (rates, row["train_loss"]) == ((None, None, None), 1.0)


def test_between_reports_a_run_is_where_its_last_heartbeat_says_and_ends_when_it_says(db: Registry) -> None:
    run = fill(db)
    attempt = new_attempt(db, run, 40)
    db.connection.execute(
        "UPDATE attempts SET at_iteration = 45, iterations_per_second = 2.0, tokens_per_second = 50.0,"
        " expected_end_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+30 seconds') WHERE id = ?",
        (attempt,),
    )
    (row,) = registry.list_runs(db, text="heron")
    assert (row["iteration"], row["progress"], row["tokens_per_second"], row["iterations_per_second"]) == (
        45,
        0.45,
        50.0,
        2.0,
    )
    assert row["eta_seconds"] == pytest.approx(30, abs=5)

    age_heartbeats(db, 100)
    (lost,) = registry.list_runs(db, text="heron")
    assert (lost["status"], lost["iteration"], lost["eta_seconds"]) == ("lost", 40, None)


def test_an_end_that_was_expected_by_now_leaves_nothing(db: Registry) -> None:
    run = fill(db)
    new_attempt(db, run, 40)
    db.connection.execute("UPDATE attempts SET expected_end_at = '2026-01-01T00:00:00.000Z'")

    assert registry.list_runs(db, text="heron")[0]["eta_seconds"] == 0


def test_the_time_of_a_run_is_summed_over_its_attempts_up_to_their_last_sign_of_life(db: Registry) -> None:
    run = new_run(db)
    first = new_attempt(db, run.id)
    age_heartbeats(db, 100)
    db.connection.execute(
        "UPDATE attempts SET started_at = strftime('%Y-%m-%dT%H:%M:%fZ', heartbeat_at, '-30 seconds')"
    )
    second = new_attempt(db, run.id)

    assert registry.list_runs(db)[0]["seconds"] == pytest.approx(30, abs=5)
    assert [(row["id"], row["end_reason"]) for row in registry.attempts_of(db, run.id)] == [
        (first, "lost"),
        (second, None),
    ]


def test_run_lineage_names_every_ancestor(db: Registry) -> None:
    oldest = new_run(db, "a")
    middle = new_run(db, "b", parent_id=oldest.id, branch_iteration=10)
    new_run(db, "c", parent_id=middle.id, branch_iteration=20)

    rows = db.rows("SELECT * FROM run_lineage WHERE run = 'c' ORDER BY generations")
    assert [(row["ancestor"], row["branch_iteration"], row["path"]) for row in rows] == [
        ("c", None, "c"),
        ("b", 20, "b > c"),
        ("a", 10, "a > b > c"),
    ]


def test_benchmark_summary_agrees_with_an_independent_computation(db: Registry) -> None:
    import statistics

    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.5]
    db.connection.execute(
        "INSERT INTO verdicts (model, verdict, messages, prompt, answer, config)"
        " VALUES ('m', 'good', '[]', 'Why?', 'So.', '{}')"
    )
    db.connection.execute(
        "INSERT INTO benchmarks (model, config, host, device, environment) VALUES ('m', '{}', 'h', 'cpu', '{}')"
    )
    db.connection.executemany(
        "INSERT INTO trials (benchmark_id, trial, prompt_tokens, generated_tokens, seconds) VALUES (1, ?, 10, 5, ?)",
        list(enumerate(values)),
    )

    (row,) = db.rows("SELECT * FROM benchmark_summary")
    assert row["mean"] == pytest.approx(statistics.mean(values))
    assert row["standard_deviation"] == pytest.approx(statistics.stdev(values), rel=1e-15)
    assert (row["median"], row["percentile_90"], row["highest"]) == (3.5, 6.0, 9.0)


def fill(db: Registry) -> int:
    """A run with something in every view, in its second attempt at iteration 40 of 100; its id."""
    parent = new_run(db, "parent")
    run = new_run(db, parent_id=parent.id, branch_iteration=5, tags=["b", "a"])
    for start, loss in ((0, 1.5), (20, 2.0)):
        attempt = new_attempt(db, run.id, start)
        for iteration in (start + 10, start + 20):
            report(db, run.id, attempt, iteration, train_loss=2.0 - iteration / 40, tokens_per_second=float(iteration))
        registry.record_validation(db, run.id, attempt, iteration=start + 20, loss=loss, standard_error=0.1)
        save(db, run.id, attempt, start + 20, validation_loss=loss)
        registry.add_event(db, run.id, attempt, kind="saved", message="saved", detail={"value": math.nan})
    db.connection.execute(
        "INSERT INTO evaluations (run_id, model, data, data_sha256, kind, config, rows)"
        " VALUES (?, 'm', 'd', 's', 'perplexity', '{}', 5)",
        (run.id,),
    )
    db.connection.execute("INSERT INTO scores VALUES (1, 'perplexity', 2.5, 0.5)")
    db.connection.execute("INSERT INTO answers (evaluation_id, row, prompt, answer) VALUES (1, 1, 'Why?', 'So.')")
    db.connection.execute(
        "INSERT INTO verdicts (model, verdict, messages, prompt, answer, config)"
        " VALUES ('m', 'good', '[]', 'Why?', 'So.', '{}')"
    )
    db.connection.execute(
        "INSERT INTO benchmarks (model, config, host, device, environment) VALUES ('m', '{}', 'h', 'cpu', '{}')"
    )
    db.connection.execute(
        "INSERT INTO trials (benchmark_id, trial, prompt_tokens, generated_tokens, seconds) VALUES (1, 1, 10, 5, 0.5)"
    )
    ask(db, run.id, iteration=40)
    return run.id


def ask(db: Registry, run_id: int, *, iteration: int) -> None:
    """The same prompt to the model and to the run's checkpoint."""
    base: int | None = None
    for asked, answer in ((None, "hm"), (run_id, "Paris")):
        base = registry.record_evaluation(
            db,
            run_id=asked,
            iteration=iteration if asked else None,
            base_evaluation_id=base,
            model="m",
            adapter_path="adapters/a" if asked else None,
            data="data/test.jsonl",
            data_sha256="s",
            kind="answers",
            config={"max_tokens": 5},
            seconds=0.5,
            answers=[registry.Answer(row=1, prompt="capital of France?", expected="Paris", answer=answer)],
        )


def test_an_answer_stands_beside_that_of_the_model_alone(db: Registry) -> None:
    run = new_run(db, "a")
    save(db, run.id, new_attempt(db, run.id, 0), 10)
    ask(db, run.id, iteration=10)
    ask(db, run.id, iteration=10)

    (row,) = registry.answers_of(db, "a", iteration=10, data_sha256="s")

    assert (row["base_answer"], row["answer"], row["expected"]) == ("hm", "Paris", "Paris")
    assert (row["evaluation_id"], row["model"], row["kind"], row["row"]) == (4, "m", "answers", 1)
    assert registry.answers_of(db, "a", iteration=20, data_sha256="s") == []
    assert registry.answers_of(db, "a", iteration=10, data_sha256="other") == []


# -- lists and curves -----------------------------------------------------------------------------------------------


def test_a_list_of_runs_is_filtered_and_ordered(db: Registry) -> None:
    for number, name in enumerate(("a", "b", "c")):
        run = new_run(db, name, model=f"models/Model-{number}", tags=[name, "all"], note="über alles")
        if number:
            registry.record_validation(db, run.id, None, iteration=1, loss=float(number), standard_error=0.1)

    def names(**filters: object) -> str:
        return "".join(row["name"] for row in registry.list_runs(db, **filters))  # type: ignore[arg-type]

    assert names() == "cba"
    assert names(limit=1) == "c"
    assert names(model="MODEL-1") == "b"
    assert names(tag="c") == "c"
    assert names(text="über") == "cba"
    assert names(status="created", order="best_validation_loss") == "bca"
    assert names(order="-best_validation_loss") == "cba"
    with pytest.raises(BadRequest, match="no column 'best_val'"):
        names(order="best_val")


def test_a_thinned_curve_keeps_its_spikes_and_its_ends(db: Registry) -> None:
    run = new_run(db)
    for iteration in range(1, 1001):
        report(db, run.id, None, iteration, train_loss={500: 99.0, 777: -99.0}.get(iteration, iteration / 1000))

    thinned = {point["iteration"]: point["value"] for point in registry.metric_series(db, run.id, "train_loss", 20)}

    assert len(thinned) <= 2 * 20 + 2
    assert (thinned[1], thinned[500], thinned[777], thinned[1000]) == (0.001, 99.0, -99.0, 1.0)
    assert list(thinned) == sorted(thinned)
    assert len(registry.loss_curve(db, run.id, buckets=20)) == len(thinned)


def test_loss_curve_puts_training_and_validation_side_by_side(db: Registry) -> None:
    run = new_run(db)
    registry.record_validation(db, run.id, None, iteration=0, loss=3.0, standard_error=0.3)
    report(db, run.id, None, 10, train_loss=2.0)
    registry.record_validation(db, run.id, None, iteration=10, loss=2.5, standard_error=0.2)
    report(db, run.id, None, 20, train_loss=1.0)

    rows = registry.loss_curve(db, run.id)
    assert [tuple(row.values()) for row in rows] == [
        (0, None, 3.0, 0.3),
        (10, 2.0, 2.5, 0.2),
        (20, 1.0, None, None),
    ]
    assert db.rows("SELECT * FROM loss_curve WHERE run = 'heron' ORDER BY iteration") == [
        {"run": "heron"} | row for row in rows
    ]


def test_the_newest_run_is_called_latest(db: Registry) -> None:
    new_run(db, "a")
    new_run(db, "b", config={"rank": 8})

    assert registry.find_run(db, "latest")["config"] == {"rank": 8}
    assert [row["name"] for row in registry.candidate_runs(db)] == ["b", "a"]
    assert status(db, "latest") == "created"
