"""Promises 6 and 7: opening a registry, new, old, newer, or many at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from registry_rows import new_attempt, new_run, report

from mlxops import registry
from mlxops.errors import Refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


# -- 6 --------------------------------------------------------------------------------------------------------------


_CROWD = """
import multiprocessing, sys
import sqlite_utils  # once, not in every process
from pathlib import Path
from mlxops import registry

def work(barrier, number):
    barrier.wait()
    with registry.open_registry(Path(sys.argv[1]), sql=Path(sys.argv[2])) as db:
        run = registry.create_run(
            db, name=None, kind="lora", fingerprint="f", model="m", model_identity="m", data="d", data_identity="d",
            config={}, target_iterations=9, adapter_path=None, word_seed=0,
        )
        for iteration in range(1, 11):
            registry.record_report(
                db, run.id, None, iteration=iteration, epoch=1, trained_tokens=1,
                metrics={"train_loss": 1.0, f"own_{number}": 2.0},
            )

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
processes = [context.Process(target=work, args=(barrier, number)) for number in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join()
sys.exit(any(process.exitcode for process in processes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("age", ["new", "old"])
def test_any_number_of_processes_may_open_a_database_at_once_and_write_to_it(
    path: Path, next_schema: Path, age: str
) -> None:
    if age == "old":
        with registry.open_registry(path) as db:
            new_run(db, "before")

    subprocess.run([sys.executable, "-c", _CROWD, path, next_schema], check=True)

    with registry.open_registry(path, sql=next_schema) as db:
        assert len(registry.list_runs(db, order="train_loss")) == 8 + (age == "old")
        assert db.connection.execute("SELECT count(*) FROM metrics").fetchone() == (8 * 10 * 2,)
    assert len(list(path.parent.glob(".mlxops/backups/*"))) == (age == "old")


@pytest.fixture
def next_schema(tmp_path: Path) -> Path:
    """The shipped SQL and one migration after it, which rebuilds a table that others point at."""
    from mlxops.resources import folder

    copy = tmp_path / "sql"
    for file in folder("db").glob("*/*.sql"):
        (copy / file.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / file.parent.name / file.name).write_text(file.read_text())
    number = 1 + len(list((copy / "migrations").iterdir()))
    (copy / "migrations" / f"{number:03d}_colour.sql").write_text(
        "ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';\n"
        "-- a comment; with a semicolon\n"
        "CREATE TABLE tags_again (run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE, tag TEXT NOT NULL,\n"
        "    PRIMARY KEY (run_id, tag)) STRICT, WITHOUT ROWID;\n"
        "INSERT INTO tags_again SELECT run_id, upper(tag) FROM tags;\n"
        "DROP TABLE tags;\n"
        "ALTER TABLE tags_again RENAME TO tags;\n"
    )
    return copy


# -- 7 --------------------------------------------------------------------------------------------------------------


def test_an_older_mlxops_refuses_a_newer_database(path: Path, next_schema: Path) -> None:
    with registry.open_registry(path, sql=next_schema):
        pass
    before = path.read_bytes()

    for opening in (registry.open_registry, registry.open_read_only):
        with pytest.raises(Refused, match="newer mlxops"):
            opening(path)
    assert path.read_bytes() == before


def test_a_migration_is_applied_once_and_whole_after_a_copy_and_keeps_all_rows(path: Path, next_schema: Path) -> None:
    with registry.open_registry(path) as db:
        run = new_run(db, tags=["a"])
        report(db, run.id, new_attempt(db, run.id), 10, train_loss=1.5)

    for _ in range(2):
        with registry.open_registry(path, sql=next_schema) as db:
            assert registry.find_run(db, "heron")["colour"] == "grey"
            assert registry.list_runs(db)[0]["tags"] == "A"
            assert registry.list_runs(db)[0]["train_loss"] == 1.5

    (backup,) = path.parent.glob(".mlxops/backups/*")
    with registry.open_read_only(backup) as db:
        assert registry.find_run(db, "heron")["tags"] == ["a"]
        assert "colour" not in registry.find_run(db, "heron")


@pytest.mark.parametrize(
    "fault", ["CREATE TABEL x (y);", "DELETE FROM metric_names;", "INSERT INTO runs (id) VALUES (1);"]
)
def test_a_failing_migration_leaves_nothing(path: Path, next_schema: Path, fault: str) -> None:
    with registry.open_registry(path) as db:
        run = new_run(db, tags=["a"])
        report(db, run.id, None, 10, train_loss=1.5)
        before = list(db.connection.iterdump())
    migration = sorted((next_schema / "migrations").iterdir())[-1]
    migration.write_text(migration.read_text() + fault)

    with pytest.raises(Exception, match=r"syntax error|rows that point|NOT NULL|FOREIGN KEY"):
        registry.open_registry(path, sql=next_schema)

    with registry.open_registry(path) as db:
        assert list(db.connection.iterdump()) == before
