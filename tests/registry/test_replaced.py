"""A registry that is removed, moved, replaced, emptied or vacuumed under a run holds the whole run afterwards."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from recorded_trainings import Training, history
from registry_rows import new_attempt, new_run

from mlxops import registry
from mlxops.events import Stopped
from mlxops.registry import waiting


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for each in path.parent.glob("runs.db*"):
        each.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace_by_an_empty_one(path: Path) -> None:
    path.unlink()
    path.touch()


def replace_by_another_projects(path: Path) -> None:
    beside = path.with_name("other.db")
    with registry.open_registry(beside) as db:
        run = new_run(db, "another")
        new_attempt(db, run.id)
    beside.replace(path)


def replace_by_an_older_copy(path: Path) -> None:
    beside = path.with_name("older.db")
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(beside)) as older:
        db.backup(older)
        older.execute("DELETE FROM metrics WHERE iteration > 2")
        older.execute("DELETE FROM events WHERE iteration > 2")
        older.execute("UPDATE runs SET iteration = 2")
        older.commit()
    beside.replace(path)


_CHANGES = [
    remove, remove_all, move, replace_by_an_empty_one, replace_by_another_projects, replace_by_an_older_copy,
]  # fmt: skip


@pytest.mark.parametrize("change", _CHANGES)
def test_a_file_that_is_removed_or_replaced_holds_the_whole_run_afterwards(
    training: Training, straight: Callable[..., dict[str, Any]], change: Callable[[Path], None]
) -> None:
    for iteration in range(1, 6):
        training.step(iteration)
    change(training.path)
    for iteration in range(6, 9):
        training.step(iteration)
    assert training.writer.place is None
    assert training.writer.try_to_return()
    for iteration in range(9, 13):
        training.step(iteration)

    assert history(training.path) == straight()
    with registry.open_read_only(training.path) as db:
        assert db.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_removed_file_whose_place_stays_taken_has_the_run_s_past_in_its_folder(
    training: Training, straight: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxops.registry.away.END_PATIENCE", 0.0)
    end = Stopped(iteration=12, reason="finished")
    for iteration in range(1, 9):
        training.step(iteration)
    for each in training.path.parent.glob("runs.db*"):
        each.unlink()
    training.path.mkdir()  # nothing can be written there
    for iteration in range(9, 13):
        training.step(iteration)
    training.record(end)
    why = training.record.end(reason="finished", status="completed", iteration=12, error=None)
    kept = [path.name for path in waiting.kept(training.folder)]
    training.path.rmdir()
    with registry.open_registry(training.path) as db:
        run_id = training.restore(db)
        waiting.bring_in(db, run_id, "f1", training.folder)

    assert why is not None
    assert kept == ["0000012_waiting.jsonl", "past.db"]
    assert history(training.path) == straight(end)
    assert list(training.folder.iterdir()) == []


@pytest.mark.parametrize("change", _CHANGES)
def test_nothing_is_written_to_another_run_or_attempt_of_the_same_numbers(
    training: Training, change: Callable[[Path], None]
) -> None:
    training.step(1)
    change(training.path)
    before = training.path.read_bytes() if training.path.exists() else b""
    training.step(2)

    assert (training.path.read_bytes() if training.path.exists() else b"") == before
    assert training.writer.place is None


@pytest.mark.parametrize("change", _CHANGES)
def test_several_runs_in_one_file_are_all_there_afterwards(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "runs.db"
    trainings = [Training(path, name) for name in ("heron", "teal", "stork")]
    for iteration in range(1, 9):
        if iteration == 5:
            change(path)
        if iteration == 7:
            assert all(each.writer.try_to_return() for each in trainings)
        for each in trainings:
            each.step(iteration)
    for each in trainings:
        each.close()

    expected = history(path)
    assert [point["iteration"] for point in expected["points"] if point["name"] == "train_loss"] == [*range(1, 9)]
    assert history(path, "teal") == history(path, "stork") == expected
    with registry.open_read_only(path) as db:
        assert db.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_moved_registry_has_all_that_was_written_before_it_was_moved(training: Training) -> None:
    for iteration in range(1, 6):
        training.step(iteration)
    before = history(training.path)
    move(training.path)
    training.step(6)
    training.writer.try_to_return()

    assert history(training.path.with_name("moved.db")) == before


def test_a_log_that_is_not_its_own_is_left_where_it_is(training: Training) -> None:
    training.step(1)
    beside = training.path.with_name("other.db")
    held = registry.open_registry(beside)
    new_run(held, "another")
    for ending in ("", "-wal", "-shm"):
        os.replace(f"{beside}{ending}", f"{training.path}{ending}")  # noqa: PTH105
    training.step(2)
    training.writer.try_to_return()

    with registry.open_registry(training.path) as db:
        assert [row["name"] for row in registry.list_runs(db)] == ["heron", "another"]
    held.close()


def test_a_file_that_is_emptied_in_its_place_is_made_again_with_the_run(training: Training) -> None:
    training.step(1)
    training.path.write_bytes(b"")
    training.step(2)
    assert training.writer.try_to_return()
    training.step(3)

    losses = [row for row in history(training.path)["points"] if row["name"] == "train_loss"]
    assert [(row["iteration"], row["elapsed_seconds"]) for row in losses] == [(2, 2.0), (3, 3.0)]


def test_a_vacuumed_file_is_the_same_file(training: Training, other: sqlite3.Connection) -> None:
    other.execute("CREATE TABLE large AS SELECT randomblob(1000000) AS bytes")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    training.step(1)
    other.execute("DROP TABLE large")
    other.execute("VACUUM")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    training.step(2)

    assert training.writer.place is not None


def test_a_run_whose_row_was_deleted_gets_one_again(training: Training, other: sqlite3.Connection) -> None:
    training.step(1)
    other.execute("PRAGMA foreign_keys=ON")
    other.execute("DELETE FROM runs")
    with registry.open_registry(training.path) as db:
        new_run(db, "another")  # it takes the number
    training.step(2)
    assert training.writer.try_to_return()

    points = history(training.path)["points"]
    assert {row["iteration"] for row in points} == {2}
    assert history(training.path, "another")["points"] == []
