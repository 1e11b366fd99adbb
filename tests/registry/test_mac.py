"""On a Mac, whose name follows the network and whose clock moves start times, an attempt stays the one it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mac
import pytest
from empty_registry import open_empty
from registry_rows import age_heartbeats, new_attempt, new_run

from mlxops import registry
from mlxops.registry import Registry
from mlxops.registry.monitor import process_of, try_to_close_dead_attempts


@pytest.fixture
def db(a_mac: mac.Mac, tmp_path: Path) -> Iterator[Registry]:
    """A registry with an attempt of this process, on the Mac."""
    with open_empty(tmp_path / "runs.db") as opened:
        new_attempt(opened, new_run(opened).id)
        yield opened


def attempt(db: Registry) -> registry.AttemptRow:
    return registry.attempts_of(db, 1)[-1]


def is_alive(db: Registry) -> bool:
    row = attempt(db)
    return registry.is_proven_alive(row["host"], row["boot_id"], row["pid"], row["process_started"])


def call(a_mac: mac.Mac, name: str) -> None:
    """Give the Mac another name, of which this process hears."""
    a_mac.say("announced", name)
    mac.forget()
    assert registry.this_host() == f"{name}.local"


def test_another_name_makes_no_other_machine(db: Registry, a_mac: mac.Mac) -> None:
    call(a_mac, "heron")

    assert attempt(db)["host"] == "ibis.local"
    assert is_alive(db)
    assert process_of(attempt(db)) == os.getpid()
    assert registry.close_dead_attempts(db) == 0


def test_after_another_name_what_died_is_closed(db: Registry, a_mac: mac.Mac) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    db.connection.execute("UPDATE attempts SET pid = ?", (gone.pid,))
    call(a_mac, "heron")

    assert registry.close_dead_attempts(db) == 1


def test_another_name_and_another_start_prove_nothing(db: Registry, a_mac: mac.Mac) -> None:
    a_mac.say("announced", "heron")
    a_mac.answer("kern.bootsessionuuid", "another")
    mac.forget()
    age_heartbeats(db, 3600)

    assert not is_alive(db)
    assert process_of(attempt(db)) is None
    assert registry.close_dead_attempts(db) == 0


def test_on_linux_the_start_of_a_machine_is_not_its_name(tmp_path: Path) -> None:
    boot = registry.boot_id()

    assert registry.is_this_machine(registry.this_host(), boot)
    assert not registry.is_this_machine("a-container", boot)


def test_a_clock_that_is_set_kills_nothing(db: Registry, a_mac: mac.Mac) -> None:
    a_mac.say("clock", "-3600")

    assert is_alive(db)
    assert registry.close_dead_attempts(db) == 0


def test_every_connection_that_writes_syncs_past_the_cache_of_the_drive(
    db: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, said = sqlite3.connect, []

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        said.append([])
        connection.set_trace_callback(said[-1].append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    with registry.Heartbeat(tmp_path / "runs.db", 1, every=0.001) as heart:
        assert heart.beaten.wait(60)
    try_to_close_dead_attempts(tmp_path / "runs.db", patience=1)
    with registry.open_registry(tmp_path / "runs.db"):
        pass

    assert len(said) >= 3
    assert all("PRAGMA fullfsync=ON" in each for each in said if each)
