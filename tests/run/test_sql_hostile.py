"""Hostile and wrong SQL through the front door: nothing is written, nothing hangs, nothing shows a traceback."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import hostile_sql
import known_registry
import pytest
from ready_programs import run_forked

from mlxops import registry
from mlxops.errors import Failed

Typed = Callable[[str], tuple[int, str, str]]

_MANY = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100)"


@pytest.fixture
def path() -> Path:
    Path("runs.db").write_bytes(known_registry.content())
    return Path("runs.db")


def state(path: Path) -> tuple[bytes, list[str], list[str]]:
    """The file, what is in it, and what lies beside it; a reader of a database in WAL mode may leave its index."""
    with registry.open_read_only(path) as db:
        dump = list(db.connection.iterdump())
    beside = [each.name for each in sorted(path.parent.iterdir()) if not each.name.endswith(("-shm", "-wal"))]
    return path.read_bytes(), dump, beside


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("delete from sqlite_master", "DELETE"),
        ("with one as (select 1) insert into run_summary (name) values (1)", "INSERT"),
        ("create table runs (x)", "CREATE"),
        ("update runs set no_such_column = 1", "UPDATE"),
    ],
)
def test_what_would_write_is_refused_whatever_else_is_wrong_with_it(
    mlxops: Typed, path: Path, text: str, verb: str
) -> None:
    said = f"SQL here only reads, and {verb} would do more\n"

    code, out, err = mlxops(f"sql {shlex.quote(text)}")
    assert (code, out, err.startswith(said)) == (3, "", True)


def test_there_are_at_least_fifty_texts() -> None:
    assert len({text for _, text in (*hostile_sql.TEXTS, *hostile_sql.ONE_CALL)}) >= 50


@pytest.mark.slow
@pytest.mark.parametrize(("code", "text"), hostile_sql.TEXTS, ids=[ascii(text)[1:51] for _, text in hostile_sql.TEXTS])
def test_hostile_sql_neither_writes_nor_hangs_nor_shows_a_traceback(
    mlxops: Typed, path: Path, code: int, text: str
) -> None:
    before = state(path)
    # only what has no end by itself is given up: a busy machine takes its time for the others
    timeout = 0.1 if code == 1 else 60

    ended, out, err = mlxops(f"sql {shlex.quote(text)} --timeout {timeout} --format jsonl")

    assert (ended, out) == (code, ""), err
    assert [word for word in ("Traceback", "a bug in", "\x1b") if word in err] == []
    assert 1 <= err.count("\n") <= 4
    assert state(path) == before


@pytest.mark.slow
@pytest.mark.parametrize(("code", "text"), hostile_sql.ONE_CALL)
def test_a_query_that_is_within_one_long_call_is_left_behind(path: Path, code: int, text: str) -> None:
    before = state(path)

    # in a process of its own, with which the call ends
    ended, out, err = run_forked("-m", "mlxops", "sql", text, "--timeout", "0.1")

    assert (ended, out) == (code, "")
    assert err.startswith("the query took longer than 0.1 s\nhint: narrow it")
    assert state(path) == before


@pytest.mark.slow
def test_ctrl_c_ends_a_query_that_is_within_one_long_call(path: Path) -> None:
    _, text = hostile_sql.ONE_CALL[-1]
    program = f"""
import signal, sys
from mlxops.__main__ import program
sys.argv = ["mlx-toolkit", "sql", {text!r}, "--timeout", "1e6"]
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
program.run()
"""

    assert run_forked("-c", program) == (130, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (f"{_MANY} SELECT zeroblob(15000000) FROM n", "the answer is larger than 256 MiB, after 18 rows"),
        (
            f"{_MANY} SELECT i FROM n ORDER BY hex(zeroblob(7500000)) || i",
            "the query needs more than 512 MiB",
        ),
        (f"{_MANY} SELECT group_concat(hex(zeroblob(7500000))) FROM n", "a value in the answer, or on the way to it"),
    ],
)
def test_a_query_that_would_fill_the_memory_is_given_up(path: Path, sql: str, message: str) -> None:
    with pytest.raises(Failed, match=message):
        registry.query(path, sql)


def test_a_registry_is_read_while_another_process_writes_to_it(path: Path) -> None:
    with registry.open_registry(path) as db, db.transaction() as connection:
        connection.execute("UPDATE runs SET note = 'half-way'")

        assert registry.query(path, "SELECT count(*) FROM runs WHERE note = 'half-way'").rows == [(0,)]
