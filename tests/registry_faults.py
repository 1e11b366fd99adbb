"""What can befall the registry of a run at work: functions that a command's process calls first."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import training_runs
from training_runs import STEP

from mlxops import registry
from mlxops.registry import away, database

FIRST, LAST = 3, 11
"""The steps before which a fault begins and ends."""

_others: list[sqlite3.Connection] = []  # what this process keeps open
_writers: list[away.Writer] = []


def at_steps(begin: Callable[[], object], end: Callable[[], object] | None, patience: float = 0.0) -> None:
    """Have this process do something before step 3 and before step 11; it waits so long at its end."""
    away.END_PATIENCE, away._SILENT, away._THREAD_PATIENCE = patience, 0.0, 0.1
    training_runs.act_before(STEP, begin, call=FIRST)
    if end is not None:
        training_runs.act_before(STEP, end, call=LAST)


def hold(project: Path) -> None:
    """Have another program hold the registry from one step to another."""
    at_steps(lambda: _lock(project), _unlock, patience=30.0)


def hold_to_the_end(project: Path) -> None:
    """Have another program hold the registry from a step on."""
    at_steps(lambda: _lock(project), None)


def hold_and_signal(project: Path, number: int) -> None:
    """Have another program hold the registry, and a signal come meanwhile."""
    at_steps(lambda: _lock(project), lambda: os.kill(os.getpid(), number))


def hold_and_look(project: Path, seen: Path) -> None:
    """Have another program hold the registry, and write down what states are there when it lets it free."""

    def look() -> None:
        states = (project / "adapters" / "run").glob("[0-9]*_state*")
        seen.write_text(" ".join(sorted(path.name for path in states)))
        _unlock()

    at_steps(lambda: _lock(project), look, patience=30.0)


def hold_from_the_start(project: Path) -> None:
    """Have another program hold the registry before the command opens it, which then does not wait for long."""
    registry.open_registry(project / "runs.db").close()
    assert database.open_registry.__kwdefaults__ is not None
    database.open_registry.__kwdefaults__["patience"] = 0.01
    _lock(project)


def fail_to_write(begin: str, end: str) -> None:
    """Have statements be executed on the connection of the run at work: limits of SQLite's own, and their end."""
    made = away.Writer.__init__

    def remembered(self: away.Writer, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        _writers.append(self)

    def execute(statement: str) -> None:
        _writers[0]._db.connection.execute(statement)

    away.Writer.__init__ = remembered  # type: ignore[method-assign]
    at_steps(lambda: execute(begin), lambda: execute(end), patience=30.0)


def limit_the_log(log: Path) -> None:
    """Have no file grow beyond the size that the registry's log has by then, and later beyond any."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    at_steps(limit, lift, patience=30.0)


def change_the_file(change: Callable[[Path], None], path: Path, patience: float = 30.0) -> None:
    """Have the file of the registry be changed before a step; a copy of it was made before the first."""
    training_runs.act_before(STEP, lambda: _copy(path), call=1)
    at_steps(lambda: change(path), None, patience)


def _lock(project: Path) -> None:
    other = sqlite3.connect(project / "runs.db", isolation_level=None, timeout=30, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    _others.append(other)


def _unlock() -> None:
    _others.pop().execute("ROLLBACK")


def _copy(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(path.with_name("older.db"))) as older:
        db.backup(older)


# what befalls the file ------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """The file alone goes."""
    path.unlink()


def remove_with_its_log(path: Path) -> None:
    """The file goes with what SQLite keeps beside it."""
    for each in path.parent.glob("runs.db*"):
        each.unlink()


def move_away(path: Path) -> None:
    """The file gets another name."""
    path.rename(path.with_name("moved.db"))


def empty(path: Path) -> None:
    """The file is cut to nothing."""
    path.write_bytes(b"")


def replace_by_an_empty_one(path: Path) -> None:
    """Another file is there, of no bytes."""
    path.unlink()
    path.touch()


def replace_by_another_projects(path: Path) -> None:
    """The registry of another project takes its place: a run and an attempt of the same numbers."""
    other = path.with_name("other.db")
    with registry.open_registry(other) as db:
        run = registry.create_run(
            db, name="another", kind="lora", fingerprint="f", model="m", model_identity="i", data="d",
            data_identity="e", config={}, target_iterations=9, adapter_path=None,
        )  # fmt: skip
        registry.start_attempt(
            db, run.id, start_kind="fresh", from_iteration=0, trained_tokens=0, target_iterations=9, device="cpu",
            environment={}, command="another",
        )  # fmt: skip
    other.replace(path)


def replace_by_an_older_copy(path: Path) -> None:
    """The copy that was made before the first step takes its place."""
    path.with_name("older.db").replace(path)


def overwrite_by_an_older_copy(path: Path) -> None:
    """The copy is written into the file, as `cp` does."""
    path.write_bytes(path.with_name("older.db").read_bytes())


def replace_by_another_programs(path: Path) -> None:
    """The database of another program takes its place."""
    remove_with_its_log(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (address TEXT)")
