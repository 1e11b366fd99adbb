"""The saved queries: what each answers on a registry whose answers were worked out by hand, and what it reads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import known_registry
import pytest

from mlxops import registry
from mlxops.registry import Registry

Typed = Callable[[str], tuple[int, str, str]]

SMALL, LARGE = "models/small", "models/large"
SAVED = registry.saved_queries()

ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    # 120 + 50 s on the first day are 0.047 hours; heron did 60 iterations, then 50
    "activity": [
        ("2026-03-06", 1, 1, 0.03, 100),
        ("2026-03-05", 1, 1, 0.02, 30),
        ("2026-03-04", 1, 2, 0.01, 10),
        ("2026-03-03", 1, 1, 0.01, 40),
        ("2026-03-02", 1, 1, 0.02, 100),
        ("2026-03-01", 1, 2, 0.05, 110),
    ],
    "attempts --param run=heron": [
        (1, "fresh", 0, 60, "lost", 120.0, "laptop", "gpu", None, None),
        (2, "exact", 50, 100, "finished", 50.0, "laptop", "gpu", None, None),
    ],
    # the deviation of 100, 110, 120 is 10
    "benchmarks": [
        (SMALL, "heron", "gpu", 64, 0, 1, 3, 90.0, 0.0, 90.0, 90.0, "2026-03-01T10:10:00.000Z"),
        (SMALL, None, "gpu", 64, 0, 1, 3, 110.0, 10.0, 110.0, 120.0, "2026-03-02T10:10:00.000Z"),
    ],
    "best_by_model": [(LARGE, "data/news", "crane", 2.5, 30, 1), (SMALL, "data", "otter", 1.7, 50, 5)],
    "best_runs": [
        ("otter", 1.7, 50, 100, "completed", SMALL),
        ("swift", 1.75, 60, 60, "interrupted", SMALL),
        ("heron", 1.8, 100, 100, "completed", SMALL),
        ("kestrel", 1.82, 100, 100, "completed", SMALL),
        ("crane", 2.5, 30, 30, "lost", LARGE),
        ("wren", 3.0, 20, 40, "failed", SMALL),
    ],
    "best_runs --param limit=1 --param model=LARGE": [("crane", 2.5, 30, 30, "lost", LARGE)],
    "branches": [("swift", "heron", 50, 1.8, 1.75, -0.05, "yes")],
    # rank 8: heron, otter, wren, which failed, kestrel; 16: swift, which branched off and has no speed
    "by_setting --param setting=lora_rank": [
        (LARGE, "data/news", 8, 1, 2.5, 2.5, 50.0, "cpu"),
        (SMALL, "data", 8, 4, 1.7, 8.32 / 4, (500 + 595 + 625) / 3, "gpu"),
        (SMALL, "data", 16, 1, None, None, None, None),
    ],
    "changed_answers": [
        (1, "The capital of France?", "Paris.", "I do not know.", "Paris, of course.", 50),
        (2, "Two and two?", "Four.", "Four.", "Five.", 50),
    ],
    "changed_answers --param run=heron": [
        (1, "The capital of France?", "Paris.", "I do not know.", "Paris.", 100),
    ],
    "row_history": [(50, "wrong", "The capital of France?", "Paris.", "Paris, of course.")],
    "row_history --param run=heron": [(100, "became right", "The capital of France?", "Paris.", "Paris.")],
    "row_history --param run=heron --param row=3": [],
    # heron: 50 is where swift left, 75 is gone already, 100 the best; otter: 50 is the best, 100 the newest
    "deletable": [
        ("heron", 25, 1000, 1000, *(f"adapters/heron/0000025_{kind}.safetensors" for kind in ("adapters", "state"))),
        ("otter", 25, 2000, 3000, *(f"adapters/otter/0000025_{kind}.safetensors" for kind in ("adapters", "state"))),
        ("otter", 75, 3000, 6000, *(f"adapters/otter/0000075_{kind}.safetensors" for kind in ("adapters", "state"))),
    ],
    "deletable --param keep=3": [
        ("otter", 25, 2000, 2000, *(f"adapters/otter/0000025_{kind}.safetensors" for kind in ("adapters", "state"))),
    ],
    # 16,500 bytes in all
    "disk": [
        ("otter", 4, 9000, 54.5, 4, "2026-03-02T10:01:40.000Z", "adapters/otter"),
        ("swift", 1, 4000, 24.2, 1, "2026-03-04T10:00:55.000Z", "adapters/swift"),
        ("heron", 3, 3000, 18.2, 3, "2026-03-01T10:01:40.000Z", "adapters/heron"),
        ("crane", 1, 500, 3.0, 1, "2026-03-05T10:00:30.000Z", "adapters/crane"),
    ],
    "endings": [
        ("finished", None, 3, 3, "2026-03-06T10:01:40.000Z"),
        ("SIGINT", None, 2, 1, "2026-03-04T10:00:40.000Z"),
        ("at work, or nobody has looked since", None, 1, 1, "2026-03-05T10:01:30.000Z"),
        ("diverged", "the loss was not finite for 5 updates in a row", 1, 1, "2026-03-03T10:00:40.000Z"),
        ("lost", None, 1, 1, "2026-03-01T10:02:00.000Z"),
    ],
    "evaluations": [
        ("otter", 50, SMALL, "data/test.jsonl", "01234567", "test", 5.5, 0.25, 2, "2026-03-02T10:05:00.000Z"),
        ("heron", 100, SMALL, "data/test.jsonl", "01234567", "test", 6.0, 0.25, 2, "2026-03-01T10:05:00.000Z"),
        (None, None, SMALL, "data/test.jsonl", "01234567", "test", 14.0, 0.5, 2, "2026-03-01T10:05:00.000Z"),
    ],
    # of rouge_l more is better
    "evaluations --param metric=rouge_l": [
        ("heron", 100, SMALL, "data/test.jsonl", "01234567", "test", 0.5, 0.02, 2, "2026-03-01T10:05:00.000Z"),
        ("otter", 50, SMALL, "data/test.jsonl", "01234567", "test", 0.28125, 0.02, 2, "2026-03-02T10:05:00.000Z"),
        (None, None, SMALL, "data/test.jsonl", "01234567", "test", 0.25, 0.02, 2, "2026-03-01T10:05:00.000Z"),
    ],
    # two errors of 0.02 make 0.0283; 0.03125 is less than twice that
    "gains": [
        ("heron", 100, "perplexity", 14.0, 6.0, -8.0, "yes"),
        ("heron", 100, "rouge_l", 0.25, 0.5, 0.25, "yes"),
        ("otter", 50, "perplexity", 14.0, 5.5, -8.5, "yes"),
        ("otter", 50, "rouge_l", 0.25, 0.28125, 0.03125, "no"),
    ],
    # wren's train loss is not finite after the validation
    "gap": [
        ("otter", 100, 1.25, 1.75, 0.5, "data"),
        ("kestrel", 100, 1.5, 1.82, 0.32, "data"),
        ("heron", 100, 1.5, 1.8, 0.3, "data"),
        ("crane", 30, 2.25, 2.5, 0.25, "data/news"),
        ("swift", 60, 1.7, 1.75, 0.05, "data"),
        ("wren", 20, 4.0, 3.0, -1.0, "data"),
    ],
    "gradients": [("wren", 90.0, 20, 45.0, 2.0, 1.0, 1), ("heron", 4.0, 50, 2.0, 2.0, None, 0)],
    # swift is a branch
    "learning_rates": [
        (LARGE, "data/news", 1e-5, 1, 2.5, 2.5, 2.5, 30, 30),
        (SMALL, "data", 1e-5, 3, 1.7, 5.32 / 3, 1.82, 100, 100),
        (SMALL, "data", 1e-3, 1, 3.0, 3.0, 3.0, 40, 40),
    ],
    # 60 iterations in 120 s, of which 10 were done again
    "lost_work": [("heron", 1, "lost", 60, 50, 10, 20.0)],
    "machines": [
        ("laptop", "gpu", "M4", 7, 5, 0.11, "2026-03-06T10:00:00.000Z"),
        ("tower", "cpu", "16 cores", 1, 1, 0.02, "2026-03-05T10:00:00.000Z"),
    ],
    "memory": [(SMALL, 8, 2048, 0, 1, 6.0), (SMALL, 4, 2048, 0, 1, 3.5)],
    "not_finite": [("wren", "train_loss", 2, 3, 40, 1, 0, 1e-3), ("wren", "gradient_norm", 1, 3, 40, 1, 0, 1e-3)],
    "overfitting": [("otter", 50, 1.7, 1.75, 0.05, 50)],
    "padding": [("heron", 4, 18.8, 25.0, 50), ("crane", 1, 0.0, 0.0, 30)],
    "profile": [
        ("forward and backward", 180.0, 90.0, 210, 180_000 / 210),
        ("saving", 10.0, 5.0, 2, 5000.0),
        ("validation", 10.0, 5.0, 3, 10_000 / 3),
    ],
    "profile --param run=otter": [
        ("forward and backward", 60.0, 85.7, 100, 600.0),
        ("validation", 10.0, 14.3, 3, 10_000 / 3),
    ],
    "resumed": [
        ("heron", "completed", 1, 1, 0, 0, "50", None, 1.8),
        ("swift", "interrupted", 1, 0, 1, 0, "55", "mlx: 0.32.3, now 0.32.4", 1.75),
    ],
    "same_settings": [(2, "heron, kestrel", 100, 100, 1.8, 1.82, 0.02)],
    "settings --param one=heron --param other=otter": [("$.warmup", 0, 10)],
    # errors of 0.03 each make 0.042, and the difference is 0.05
    "significant": [(SMALL, "data", "otter", "swift", 1.7, 0.05, "no")],
    # heron's second attempt, otter and kestrel; wren failed
    "speed_by_batch": [
        (LARGE, "cpu", 1, 2048, 1, 50.0, 50.0),
        (SMALL, "gpu", 4, 2048, 3, 1720 / 3, 625.0),
    ],
    "still_improving": [("heron", 100, 1.8, 0.2), ("kestrel", 100, 1.82, 0.18)],
    "story": [("2026-03-06T10:01:40.000Z", 1, 100, "info", "stopped", "finished at iteration 100")],
    "tags": [("baseline", SMALL, "data", 2, 2, 1.8, 1.81), ("tuned", SMALL, "data", 2, 1, 1.7, 2.35)],
    # heron and swift without their pauses of 20 s
    "time_to_loss --param loss=1.9": [
        ("swift", 50, 60, 20.0),
        ("otter", 0, 50, 40.0),
        ("kestrel", 0, 100, 100.0),
        ("heron", 0, 100, 170.0),
    ],
    "troubles --param run=swift": [
        ("2026-03-04T10:00:30.000Z", "swift", 2, 55, "warning", "inexact", "mlx: 0.32.3, now 0.32.4"),
    ],
    # 3 s an iteration; 10 s for the 5 iterations of swift's second attempt; 1 s
    "unfinished": [
        ("crane", "lost", 30, 200, 15.0, 510.0, "2026-03-05T10:02:50.000Z", "inv lora --name crane"),
        ("swift", "interrupted", 60, 100, 60.0, 80.0, "2026-03-04T10:02:50.000Z", "inv lora --name swift"),
        ("wren", "failed", 40, 100, 40.0, 60.0, "2026-03-03T10:02:50.000Z", "inv lora --name wren"),
    ],
    "verdicts": [
        ("models/small", None, None, 0, 1, "2026-03-01T10:06:43.000Z"),
        ("models/small", "heron", 50, 1, 1, "2026-03-01T10:06:42.000Z"),
    ],
    # 0.32.4 of batch size 4: otter, swift (without speed), and kestrel, which is heron again
    "versions": [
        (LARGE, "data/news", "cpu", 1, "0.32.4", 1, 50.0, None, 0, None),
        (SMALL, "data", "gpu", 4, "0.32.3", 1, 500.0, None, 0, None),
        (SMALL, "data", "gpu", 4, "0.32.4", 3, 610.0, 22.0, 1, 0.02),
        (SMALL, "data", "gpu", 8, "0.32.3", 1, None, None, 0, None),
    ],
    # without: heron and kestrel
    "warmup": [(SMALL, "data", 1e-5, 100, 1, 2, 1.7, 1.81, -0.11)],
    # 500 s in all
    "where_time_went": [
        ("heron", 170.0, 34.0, 20.0, 20.0, 2),
        ("kestrel", 100.0, 20.0, 0.0, 0.0, 1),
        ("crane", 90.0, 18.0, 0.0, 0.0, 1),
        ("otter", 80.0, 16.0, 0.0, 0.0, 1),
        ("wren", 40.0, 8.0, 0.0, 0.0, 1),
        ("swift", 20.0, 4.0, 0.0, 20.0, 2),
    ],
}


@pytest.fixture
def path() -> Path:
    """The known registry, in the current folder and free to be changed."""
    Path("runs.db").write_bytes(known_registry.content())
    return Path("runs.db")


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with registry.open_registry(path) as opened:
        yield opened


def asked(path: Path, name: str, **parameters: object) -> list[tuple[Any, ...]]:
    saved = registry.saved_query(name)
    return registry.query(path, saved.sql, dict.fromkeys(saved.parameters) | parameters).rows


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("typed", ANSWERS)
def test_a_saved_query_answers_as_was_worked_out_by_hand(mlxops: Typed, path: Path, typed: str) -> None:
    code, out, err = mlxops(f"sql @{typed} --json")

    assert (code, err) == (0, "")
    rows = [tuple(row.values()) for row in json.loads(out)]
    assert rows == [pytest.approx(row) for row in ANSWERS[typed]]


def test_every_saved_query_has_an_answer_worked_out_by_hand() -> None:
    assert {typed.split()[0] for typed in ANSWERS} == {saved.name for saved in SAVED}
    assert len(SAVED) >= 20


def test_troubles_are_told_newest_first(path: Path) -> None:
    assert [row[1] for row in asked(path, "troubles")] == ["swift", "wren", "wren"]
    assert [row[1] for row in asked(path, "troubles", limit=2)] == ["swift", "wren"]


def test_a_clear_difference_is_significant_and_one_without_standard_errors_unknown(db: Registry, path: Path) -> None:
    db.connection.execute("UPDATE runs SET best_validation_loss = 1.2 WHERE name = 'otter'")
    assert asked(path, "significant")[0][-1] == "yes"

    db.connection.execute("DELETE FROM metrics WHERE run_id = 4")
    assert asked(path, "significant")[0][-1] == "unknown"


def test_nothing_of_a_run_at_work_is_deletable(db: Registry, path: Path) -> None:
    db.connection.execute("UPDATE runs SET status = 'running' WHERE name = 'otter'")
    db.connection.execute(
        """
        UPDATE attempts SET ended_at = NULL, heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE run_id = 2
        """
    )

    assert [row[:2] for row in asked(path, "deletable")] == [("heron", 25)]


def test_what_a_folder_offers_is_not_deletable(db: Registry, path: Path) -> None:
    db.connection.execute("UPDATE runs SET offered_checkpoint_id = 5 WHERE name = 'otter'")

    assert [row[:2] for row in asked(path, "deletable")] == [("heron", 25), ("otter", 75)]


def test_a_saved_query_of_an_empty_registry_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    registry.open_registry(path).close()

    found = {saved.name: registry.query(path, saved.sql, dict.fromkeys(saved.parameters)).rows for saved in SAVED}

    assert found == {saved.name: [] for saved in SAVED}


# -- what a saved query is ------------------------------------------------------------------------------------------


def test_a_saved_query_asks_a_question_and_explains_its_parameters() -> None:
    assert [saved.name for saved in SAVED if not saved.question.endswith("?")] == []
    assert [saved.name for saved in SAVED if set(saved.meanings) != set(saved.parameters)] == []


def test_a_saved_query_names_each_column_once(path: Path) -> None:
    columns = {saved.name: registry.query(path, saved.sql, dict.fromkeys(saved.parameters)).columns for saved in SAVED}

    assert [name for name, found in columns.items() if len(set(found)) != len(found)] == []
    assert [(name, each) for name, found in columns.items() for each in found if not each.isidentifier()] == []


def scans_of_all_points(db: Registry, sql: str) -> list[str]:
    """The steps of SQLite's program that start at the first or last of all points, and not within a key's range."""
    ((root,),) = db.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'metrics'").fetchall()
    steps = db.rows(f"EXPLAIN {sql}", dict.fromkeys(registry.parameters_of(sql)))
    cursors = {step["p1"] for step in steps if step["opcode"] == "OpenRead" and step["p2"] == root}
    return [step["opcode"] for step in steps if step["opcode"] in ("Rewind", "Last") and step["p1"] in cursors]


def test_a_saved_query_never_reads_all_points(db: Registry) -> None:
    assert {saved.name: scans_of_all_points(db, saved.sql) for saved in SAVED} == {saved.name: [] for saved in SAVED}


def test_reading_all_points_is_noticed(db: Registry) -> None:
    assert scans_of_all_points(db, "SELECT max(value) FROM metrics AS points") == ["Rewind"]


# -- parameters -----------------------------------------------------------------------------------------------------


def test_a_run_may_be_called_latest(mlxops: Typed, path: Path) -> None:
    assert mlxops("sql @attempts --param run=latest") == mlxops("sql @attempts --param run=kestrel")


@pytest.mark.parametrize(
    ("typed", "err"),
    [
        ("@attempts --param run=herom", "no run 'herom'\nhint: did you mean 'heron'?\n"),
        ("@attempts --param ran=x", "@attempts has no parameter 'ran'\nhint: did you mean 'run'?\n"),
        ("@disk --param run=x", "@disk has no parameter 'run'\nhint: @disk takes none\n"),
        ("@time_to_loss", "@time_to_loss needs a value for loss\nhint: `--param loss=VALUE`\n"),
        (
            "@settings --param one=heron",
            "@settings needs a value for other\nhint: `--param other=VALUE`\n",
        ),
        ("@best_run", "no saved query 'best_run'\nhint: did you mean 'best_runs'?\n"),
    ],
)
def test_a_wrong_parameter_is_named_with_the_near_one(mlxops: Typed, path: Path, typed: str, err: str) -> None:
    assert mlxops(f"sql {typed}") == (2, "", err)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("@time_to_loss --param loss=abc", "loss takes a number, not 'abc'"),
        ("@time_to_loss --param loss=1e999", "loss takes a number, not '1e999'"),
        ("@deletable --param keep=abc", "keep takes a whole number from 1, not 'abc'"),
        ("@deletable --param keep=0", "keep takes a whole number from 1, not '0'"),
        ("@best_runs --param limit=1.5", "limit takes a whole number from 1, not '1.5'"),
        ("@troubles --param limit=-1", "limit takes a whole number from 1, not '-1'"),
        ("@by_setting --param setting=lora_rnk", "'lora_rnk' is not a setting that the registry has"),
        ("@by_setting --param 'setting=a\"b'", "'a\"b' is not a setting that the registry has"),
        ("@evaluations --param metric=rouge", "'rouge' is not a score that the registry has"),
        ("@benchmarks --param metric=speed", "'speed' is not a figure of benchmarks that the registry has"),
        ("@versions --param package=torch", "'torch' is not a package that the registry has"),
    ],
)
def test_a_parameter_of_another_kind_is_refused_by_its_name(mlxops: Typed, path: Path, typed: str, said: str) -> None:
    code, out, err = mlxops(f"sql {typed}")

    assert (code, out) == (2, "")
    assert err.startswith(f"{said}\nhint: ")


def test_a_name_that_is_not_there_comes_with_the_near_one_or_those_there_are(mlxops: Typed, path: Path) -> None:
    assert "hint: did you mean 'lora_rank'?" in mlxops("sql @by_setting --param setting=lora_rnk")[2]
    assert "hint: there are mlx, mlx-lm, mlxops\n" in mlxops("sql @versions --param package=torch")[2]


def test_before_the_first_run_any_name_may_be_asked_for(mlxops: Typed) -> None:
    registry.open_registry(Path("runs.db")).close()

    assert mlxops("sql @by_setting --param setting=lora_rank --json") == (0, "[]\n", "")


def test_every_number_of_a_saved_query_is_checked_to_be_one() -> None:
    lines = [saved.meanings[name] for saved in SAVED for name in ("limit", "keep", "loss") if name in saved.parameters]

    assert [line for line in lines if ", a whole number from 1; " not in line] == ["the loss to reach, a number"]


def test_a_parameter_in_brackets_has_a_default(mlxops: Typed) -> None:
    listed = {row["name"]: row["parameters"] for row in json.loads(mlxops("sql .queries --json")[1])}

    assert (listed["@attempts"], listed["@settings"], listed["@disk"]) == ("[run]", "one, other", "")


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("10", 10),
        ("-1e-5", -1e-5),
        ("007", "007"),
        ("99999999999999999999", "99999999999999999999"),
        ("9" * 5000, "9" * 5000),
        ("1e999", "1e999"),
        ("nan", "nan"),
        ("a=b, 'c'", "a=b, 'c'"),
        ("", ""),
    ],
)
def test_a_parameter_is_a_number_where_it_is_written_as_one(
    mlxops: Typed, path: Path, typed: str, value: object
) -> None:
    code, out, _ = mlxops(f"sql 'select :value as value' --json --param {shlex.quote(f'value={typed}')}")

    assert (code, json.loads(out)) == (0, [{"value": value}])
