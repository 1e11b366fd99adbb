"""The writer of a run's entries while the registry is away, on real files, with a clock of its own and no thread."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from recorded_trainings import Training, history

from mlxops import registry
from mlxops.errors import Failed
from mlxops.events import Stopped
from mlxops.registry import waiting
from mlxops.registry.away import STEP_PATIENCE, Writer
from mlxops.registry.entries import Entry

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


# full ----------------------------------------------------------------------------------------------------------------


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


def test_before_the_first_step_a_registry_that_is_away_is_an_error(
    training: Training, other: sqlite3.Connection
) -> None:
    (attempt,) = registry.attempts_of(training.db, 1)
    training.db.guard = None
    writer = Writer(training.db, 1, attempt["id"])
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Failed, match="another process keeps"):
        writer(Entry("event", 0.0, {"kind": "note", "message": "m"}))
