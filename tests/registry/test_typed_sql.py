"""SQL that a person typed, and saved queries: what they may do, and what is said of their errors."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from empty_registry import open_empty
from registry_rows import new_run

from mlxops import registry
from mlxops.errors import BadRequest, Failed, NotFound
from mlxops.registry import Registry
from mlxops.resources import folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with open_empty(path) as opened:
        yield opened


# -- SQL that a person typed ----------------------------------------------------------------------------------------


def test_a_query_answers_with_columns_and_rows(db: Registry, path: Path) -> None:
    for name in ("b", "a", "c"):
        new_run(db, name)

    answer = registry.query(path, "SELECT name, iteration FROM runs WHERE name < :last ORDER BY 1", {"last": "c"})
    assert answer == registry.Table(("name", "iteration"), [("a", 0), ("b", 0)])
    cut = registry.query(path, "SELECT name FROM runs ORDER BY 1", limit=2)
    assert (cut.rows, cut.more) == ([("a",), ("b",)], True)


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("SELECT nam FROM runs", "column 8: no such column: nam", "did you mean 'name'?"),
        ("SELECT name\nFROM run", "line 2, column 6: no such table: run", "did you mean 'runs'?"),
        ("SELECT r.train_los FROM run_summary AS r", "column 10: no such column", "did you mean 'train_loss'?"),
        ("SELEC name FROM runs", 'column 1: near "SELEC": syntax error', ".schema"),
        ("SELECT name, where FROM runs where", 'column 14: near "where": syntax error', ".schema"),
        ("SELECT 'from', 1.5e-3 FROM -- from\nfrom runs", 'line 2, column 1: near "from": syntax error', ".schema"),
        ("SELECT 1 +", "column 11: incomplete input", ".schema"),
        ("SELECT 'never closed", "column 8: unrecognized token", ".schema"),
        ("SELECT", "column 7: incomplete input", ".schema"),
        ("SELECT 1; SELECT 2", "column 11: only one statement at a time", "one by one"),
        ("-- nothing", "there is no SELECT", "run_summary"),
        ("SELECT * FROM runs WHERE name = :run", "needs a value for :run", "--param run=VALUE"),
        ("SELECT ?", "a parameter has a name here", "--param run=VALUE"),
        ("SELECT averge(iteration) FROM runs", "column 8: no such function: averge", "did you mean 'avg'?"),
        ("SELECT max() FROM runs", "column 8: wrong number of arguments to function max()", ".schema"),
        ("SELECT runs.id, name FROM runs, runs AS b", "column 17: ambiguous column name: name", "runs.name"),
        (
            "SELECT note FROM metrics",
            "column 8: no such column: note",
            "'note' is a column of runs, verdicts, run_summary, verdict",
        ),
        ("SELECT nonsense FROM metrics", "column 8: no such column: nonsense", ".schema"),
        ("SELECT abs(-9223372036854775808)", "SQL: integer overflow", ".schema"),
    ],
)
def test_wrong_sql_is_explained(db: Registry, path: Path, sql: str, message: str, hint: str) -> None:
    with pytest.raises(BadRequest) as caught:
        registry.query(path, sql, {})

    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sql", "lines"),
    [
        ("SELECT\n  nam FROM runs", ["    nam FROM runs", "    ^"]),
        ("SELECT '漢字', nam FROM runs", ["  SELECT '漢字', nam FROM runs", "                 ^"]),
        ("SELECT 1,\tnam FROM runs", ["  SELECT 1, nam FROM runs", "            ^"]),
    ],
)
def test_the_place_of_what_is_wrong_is_marked(db: Registry, path: Path, sql: str, lines: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        registry.query(path, sql)

    assert caught.value.message.split("\n")[1:] == lines


def test_of_a_long_line_the_part_around_the_place_is_shown(db: Registry, path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        registry.query(path, f"SELECT {'1, ' * 500}nam, {'2, ' * 500}3 FROM runs")

    _, line, mark = caught.value.message.split("\n")
    assert line[mark.index("^") :].startswith("nam, 2, ")
    assert len(line) < 80


def test_a_view_of_a_person_that_is_broken_breaks_nothing_else(db: Registry, path: Path) -> None:
    db.connection.execute("CREATE TABLE gone (x)")
    db.connection.execute("CREATE VIEW broken AS SELECT x FROM gone")
    db.connection.execute("DROP TABLE gone")

    assert {"name": "broken", "kind": "view", "columns": []} in registry.schema(path)
    with pytest.raises(BadRequest, match="no such column: nam"):
        registry.query(path, "SELECT nam FROM runs")


_ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_query_ends_after_its_timeout(db: Registry, path: Path) -> None:
    with pytest.raises(Failed, match=r"longer than 0\.01 s"):
        registry.query(path, _ENDLESS, timeout=0.01)


def test_ctrl_c_ends_a_query(db: Registry, path: Path) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            registry.query(path, _ENDLESS)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_there_is_no_registry_until_a_run_makes_one(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("absent.db", "empty.db"):
        with pytest.raises(NotFound, match="there is no registry"):
            registry.query(tmp_path / name, "SELECT 1")


def test_the_schema_lists_every_view_and_table_with_its_columns(db: Registry, path: Path) -> None:
    listed = {entry["name"]: entry for entry in registry.schema(path)}

    assert {name for name, entry in listed.items() if entry["kind"] == "view"} == {
        file.stem for file in (folder("db") / "views").glob("*.sql")
    }
    assert {"name": "best_validation_loss", "type": "REAL"} in listed["runs"]["columns"]


# -- saved queries --------------------------------------------------------------------------------------------------


def test_settings_tells_what_two_runs_differ_in(db: Registry, path: Path) -> None:
    new_run(db, "a", config={"rank": 8, "keys": ["q", "k"], "seed": 0})
    new_run(db, "b", config={"rank": 16, "keys": ["q"], "seed": 0})

    saved = registry.saved_query("settings")
    assert saved.parameters == ("one", "other")
    rows = registry.query(path, saved.sql, {"one": "a", "other": "b"}).rows
    assert rows == [("$.keys[1]", "k", None), ("$.rank", 8, 16)]


def test_an_unknown_saved_query_suggests_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        registry.saved_query("best_run")
    assert caught.value.hint == "did you mean 'best_runs'?"
