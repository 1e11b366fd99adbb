"""The writer of a run's entries while the registry is away, on real files, with a clock of its own and no thread."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from empty_registry import open_empty
from registry_rows import new_attempt, new_run

from mlxops import registry, times
from mlxops.errors import Failed
from mlxops.events import Event, Notice, Report, Saved, Started, Stopped, Validation
from mlxops.registry import waiting
from mlxops.registry.away import STEP_PATIENCE, Writer
from mlxops.registry.entries import Entry
from mlxops.registry.recorder import Recorder


@dataclass
class Training:
    """A run at work without a model: what it says is recorded, its clock stands, and no thread tries for it."""

    path: Path
    name: str = "heron"
    pace: float = 1.0
    seconds: float = 0.0
    said: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.db = (registry.open_registry if self.path.exists() else open_empty)(self.path)
        self.folder = self.path.parent / "adapters" / self.name
        self.folder.mkdir(parents=True)
        run = new_run(self.db, self.name)
        self.created_at = registry.find_run(self.db, self.name)["created_at"]
        attempt = new_attempt(self.db, run.id)
        self.writer = Writer(
            self.db, run.id, attempt, folder=self.folder, restore=self.restore, say=self.said.append,
            clock=lambda: self.seconds, in_background=False,
        )  # fmt: skip
        self.record = Recorder(self.writer, 0, now=self.now)
        self.record(Started(iteration=0, target=100, batches_per_epoch=10, trained_tokens=0))

    def now(self) -> float:
        """Seconds since 1970, counted from the run's creation."""
        return times.time_of(self.created_at).timestamp() + self.seconds

    def restore(self, db: registry.Registry) -> int:
        return new_run(db, self.name).id

    def step(self, iteration: int) -> None:
        """A step of training: a report, every second time a validation, every fourth a checkpoint."""
        self.seconds += self.pace
        metrics = {"train_loss": 3 - iteration / 10, "trained_tokens": iteration * 10.0, "gradient_norm": float("nan")}
        self.record(Report(iteration=iteration, epoch=1, metrics=metrics))
        if iteration % 2 == 0:
            self.record(
                Validation(
                    iteration=iteration, loss=3 - iteration / 20, standard_error=0.1, rows=1, tokens=1, seconds=0
                )
            )
            self.record(Notice(kind="note", message=f"it is {iteration}\u2028", iteration=iteration))
        if iteration % 4 == 0:
            self.writer.keep(iteration)
            self.record(saved(iteration))

    def close(self) -> None:
        self.db.close()


def saved(iteration: int) -> Saved:
    return Saved(
        iteration=iteration, adapter_file=f"{iteration:07d}_adapters.safetensors",
        state_file=f"{iteration:07d}_state.safetensors", bytes=1, adapter_sha256="a", state_sha256=f"s{iteration}",
        train_loss=1.0, validation_loss=3 - iteration / 20, seconds=0.0,
    )  # fmt: skip


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    made = Training(tmp_path / "project" / "runs.db")
    yield made
    made.close()


@pytest.fixture
def straight(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The history of the same twelve steps that nothing befell."""

    def train(last: Event | None = None, pace: float = 1.0) -> dict[str, Any]:
        made = Training(tmp_path / "straight" / "runs.db", pace=pace)
        for iteration in range(1, 13):
            made.step(iteration)
        if last is not None:
            made.record(last)
        made.close()
        return history(made.path)

    return train


def history(path: Path, name: str = "heron") -> dict[str, Any]:
    """What the registry holds of a run, all times counted from its creation."""
    since = "round((julianday({}) - julianday(runs.created_at)) * 86400, 1) AS seconds"
    of_run = "JOIN runs ON runs.id = run_id WHERE runs.name = ?"
    tables = {
        "points": "SELECT name, iteration, value, elapsed_seconds FROM metric WHERE run = ? ORDER BY 1, 2",
        "series": "SELECT metric_names.name, count, not_finite, last_value, last_elapsed_ms, min_iteration"
        f" FROM series JOIN metric_names ON metric_names.id = name_id {of_run} ORDER BY 1",
        "events": f"SELECT events.iteration, {since.format('time')}, level, events.kind, message,"
        f" attempt_id IS NULL AS is_alone FROM events {of_run} ORDER BY events.id",
        "checkpoints": f"SELECT checkpoints.iteration, {since.format('checkpoints.created_at')}, is_best,"
        f" checkpoints.status, state_sha256, attempt_id IS NULL AS is_alone FROM checkpoints {of_run} ORDER BY 1",
    }
    with registry.open_read_only(path) as db:
        run = registry.find_run(db, name)
        found = {table: db.rows(sql, (run["name"],)) for table, sql in tables.items()}
    return {**found, "run": (run["iteration"], run["trained_tokens"], run["best_iteration"])}


@pytest.fixture
def other(training: Training) -> Iterator[sqlite3.Connection]:
    """Another program, which has the registry open."""
    with closing(sqlite3.connect(training.path, isolation_level=None, timeout=0)) as connection:
        yield connection


# held by another program ----------------------------------------------------------------------------------------------


def test_a_step_waits_no_longer_than_50_ms_for_another_program(training: Training) -> None:
    assert training.db.connection.execute("PRAGMA busy_timeout").fetchone() == (50,)
    assert STEP_PATIENCE == 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [45, 600])
def test_a_lock_of_any_length_costs_no_point_and_each_has_the_time_of_its_making(
    training: Training, other: sqlite3.Connection, straight: Callable[..., dict[str, Any]], seconds: int
) -> None:
    training.pace = seconds / 10
    training.step(1)
    other.execute("BEGIN IMMEDIATE")
    for iteration in range(2, 12):
        training.step(iteration)
    held = training.writer.try_to_return()
    other.execute("ROLLBACK")
    returned = training.writer.try_to_return()
    training.step(12)

    assert (held, returned) == (False, True)
    assert history(training.path) == straight(pace=seconds / 10)
    assert [notice.kind for notice in training.said] == ["registry away", "registry back"]


def test_a_lock_of_an_instant_is_not_mentioned(training: Training, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    training.step(1)
    other.execute("ROLLBACK")
    training.writer.try_to_return()
    training.step(2)

    assert training.said == []
    assert training.writer.place is not None


@pytest.mark.slow
def test_a_registry_that_is_held_for_ever_is_told_at_the_end_and_read_from_the_folder_later(
    training: Training, other: sqlite3.Connection, straight: Callable[..., dict[str, Any]], monkeypatch: Any
) -> None:
    monkeypatch.setattr("mlxops.registry.away.END_PATIENCE", 0.0)
    end = Stopped(iteration=12, reason="finished")
    other.execute("BEGIN IMMEDIATE")
    for iteration in range(1, 13):
        training.step(iteration)
    training.record(end)
    why = training.record.end(reason="finished", status="completed", iteration=12, error=None)
    other.execute("ROLLBACK")
    before = history(training.path)
    run = registry.find_run(training.db, "heron")
    brought = waiting.bring_in(training.db, run["id"], run["fingerprint"], training.folder)

    assert why is not None
    assert "another process keeps" in why
    assert (before["points"], before["events"]) == ([], [])
    assert brought == 12 + 6 + 6 + 3 + 2  # reports, validations, notes, checkpoints, and the end
    assert history(training.path) == straight(end)
    assert registry.find_run(training.db, "heron")["status"] == "completed"
    assert waiting.kept(training.folder) == []


def test_what_waits_is_written_once_however_often_it_is_brought_in(
    training: Training, other: sqlite3.Connection, tmp_path: Path
) -> None:
    other.execute("BEGIN IMMEDIATE")
    for iteration in range(1, 13):
        training.step(iteration)
    kept = {path.name: path.read_bytes() for path in waiting.kept(training.folder)}
    other.execute("ROLLBACK")
    training.writer.try_to_return()
    once = history(training.path)
    for name, content in kept.items():
        (training.folder / name).write_bytes(content)
    waiting.bring_in(training.db, 1, "f1", training.folder)

    assert sorted(kept) == [f"{iteration:07d}_waiting.jsonl" for iteration in (4, 8, 12)]
    assert history(training.path) == once


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"format": "mlxops-waiting-1"}\n[1]\n', b"\xff\xfe"])
def test_a_file_that_is_not_what_was_written_stays_and_brings_nothing_in(training: Training, content: bytes) -> None:
    file = training.folder / "0000004_waiting.jsonl"
    file.write_bytes(content)

    assert waiting.bring_in(training.db, 1, "f1", training.folder) == 0
    assert file.read_bytes() == content


def test_what_waits_for_another_run_is_not_brought_in(training: Training, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    training.step(4)
    other.execute("ROLLBACK")

    assert waiting.bring_in(training.db, 1, "another fingerprint", training.folder) == 0
    assert len(waiting.kept(training.folder)) == 1


# full, read-only, removed, replaced -----------------------------------------------------------------------------------


def test_a_log_that_its_disk_does_not_take_is_emptied_into_the_file_and_makes_room(
    training: Training, straight: Callable[..., dict[str, Any]]
) -> None:
    training.db.connection.execute("PRAGMA wal_autocheckpoint=0")  # as it is while a reader keeps the log
    for iteration in range(1, 12):
        training.step(iteration)
    log = training.path.with_name("runs.db-wal").stat().st_size

    with limited_files(log):
        training.step(12)
        first = training.writer.try_to_return()
        second = training.writer.try_to_return()
    training.writer.look()

    assert training.path.stat().st_size < log  # the limit is the log's alone
    assert (first, second) == (False, True)
    assert training.writer.has_come_back
    assert history(training.path) == straight()


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size meanwhile, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_database_takes_all_of_it_once_there_is_room(
    training: Training, straight: Callable[..., dict[str, Any]]
) -> None:
    connection = training.db.connection
    training.step(1)
    connection.execute("PRAGMA max_page_count=1")  # which SQLite takes for the pages there are
    large = Entry(
        "event", training.now(), {"kind": "large", "message": "x" * 100_000, "iteration": None, "level": "info"}
    )
    training.writer(large)
    for iteration in range(2, 13):
        training.step(iteration)
    full = training.writer.try_to_return()
    connection.execute("PRAGMA max_page_count=1000000")
    free = training.writer.try_to_return()
    connection.execute("DELETE FROM events WHERE kind = 'large'")

    assert (full, free) == (False, True)
    assert "database or disk is full" in training.said[0].message
    assert history(training.path) == straight()


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


def test_before_the_first_step_a_registry_that_is_away_is_an_error(
    training: Training, other: sqlite3.Connection
) -> None:
    (attempt,) = registry.attempts_of(training.db, 1)
    training.db.guard = None
    writer = Writer(training.db, 1, attempt["id"])
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Failed, match="another process keeps"):
        writer(Entry("event", 0.0, {"kind": "note", "message": "m"}))
