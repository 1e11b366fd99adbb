"""SQL as text: tokens, parameters and places in it; and how `sql` is typed and answered."""

from __future__ import annotations

import doctest
import io
import json
from collections.abc import Callable
from pathlib import Path

import known_registry
import pytest

from mlxops.jobs.run import sql as ask
from mlxops.registry.sql import text
from mlxops.tasks import namespace
from mlxops.tasks.spelling import rewrite
from mlxops.ui.run import sql as answer
from mlxops.ui.terminal import console

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def path() -> Path:
    Path("runs.db").write_bytes(known_registry.content())
    return Path("runs.db")


@pytest.mark.parametrize("module", [text, ask])
def test_the_examples_of_a_module_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "texts"),
    [
        ("SELECT 'it''s', \"a b\", [c], `d`", ["SELECT", "'it''s'", ",", '"a b"', ",", "[c]", ",", "`d`"]),
        ("1.5e-3+.5-0x1F", ["1.5e-3", "+", ".5", "-", "0x1F"]),
        ("a->>'$.b'||c /* never closed", ["a", "->>", "'$.b'", "||", "c"]),
        ("x >= :run -- ; :no", ["x", ">=", ":run"]),
        ("größe\u00a0<> 'never closed", ["größe", "<>", "'never closed"]),
        ("", []),
    ],
)
def test_sql_falls_into_tokens(sql: str, texts: list[str]) -> None:
    assert [each.text for each in text.tokens(sql)] == texts


@pytest.mark.parametrize(
    ("sql", "offset"),
    [("SELECT 1", None), ("SELECT 1; -- done", None), ("SELECT ';'; ;", None), ("SELECT 1; SELECT 2", 10)],
)
def test_a_second_statement_is_found_outside_texts_and_comments(sql: str, offset: int | None) -> None:
    assert text.second_statement(sql) == offset


# -- typing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        (["sql", "--list"], ["sql", ".queries"]),
        (["sql", "--schema", "-f", "json"], ["sql", ".schema", "--format", "json"]),
        (["sql", "--query", "disk"], ["sql", "@disk"]),
        (["run.sql", "--query=disk", "-p", "a=1"], ["run.sql", "@disk", "--param", "a=1"]),
        (["sql", "--param", "a=1", "--query", "disk"], ["sql", "--param", "a=1", "@disk"]),
        (["sql", "--query"], ["sql", "--query"]),
        (["sql", "-- all\nselect 1"], ["sql", " -- all\nselect 1"]),
        (["runs", "--list"], ["runs", "--list"]),
    ],
)
def test_queries_and_schema_can_be_asked_for_by_options(typed: list[str], ours: list[str]) -> None:
    assert rewrite(typed, namespace) == ours


def test_sql_may_begin_with_a_comment(mlxops: Typed, path: Path) -> None:
    assert mlxops("sql '-- how many?\nselect count(*) as runs from runs'") == (0, "runs\n6\n", "")


@pytest.mark.parametrize(
    ("typed", "err"),
    [
        ("'select :runn' --param run=1", "the query has no parameter 'run'\nhint: did you mean 'runn'?\n"),
        ("'select 1' --param run=1", "the query has no parameter 'run'\nhint: the query takes none\n"),
        ("'select :a, :b' --param a=1", "the query needs a value for b\nhint: `--param b=VALUE`\n"),
        (
            "'select :a' --param a=1 --param a=2",
            "the parameter 'a' stands there twice\nhint: give each one value\n",
        ),
    ],
)
def test_a_parameter_that_is_missing_or_unknown_is_named(mlxops: Typed, path: Path, typed: str, err: str) -> None:
    assert mlxops(f"sql {typed}") == (2, "", err)


@pytest.mark.parametrize("end", ["", ";", ";;", "; ; -- done", ";/* done */;"])
def test_semicolons_at_the_end_are_no_second_statement(mlxops: Typed, path: Path, end: str) -> None:
    assert mlxops(f"sql 'select 1 as one{end}'") == (0, "one\n1\n", "")


# -- answering ------------------------------------------------------------------------------------------------------


def test_in_a_pipe_the_answer_is_csv_with_all_digits(mlxops: Typed, path: Path) -> None:
    assert mlxops("sql 'select 0.1 + 0.2 as sum, null as empty'") == (0, "sum,empty\n0.30000000000000004,\n", "")


def test_in_a_terminal_the_answer_is_a_table_unless_asked_otherwise() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = console.make(file=Terminal()), console.make(file=io.StringIO())

    assert answer.format_of(None, False, terminal) == "table"
    assert answer.format_of(None, False, pipe) == "csv"
    assert answer.format_of("md", False, terminal) == "md"
    assert answer.format_of("md", True, terminal) == "json"


def test_a_table_of_many_rows_is_cut_and_says_so(mlxops: Typed, path: Path) -> None:
    numbers = "with recursive n (i) as (select 1 union all select i + 1 from n) select i from n"

    code, out, err = mlxops(f"sql '{numbers}' --format table")

    assert (code, out.split()[-1]) == (0, "1000")
    assert err == "these are the first 1,000 rows: --format csv writes all\n"


def test_a_table_without_rows_says_so(mlxops: Typed, path: Path) -> None:
    code, out, err = mlxops("sql 'select name from runs where 0' --format table")

    assert (code, out.split()[0], err) == (0, "name", "no rows\n")


@pytest.mark.parametrize("form", ["table", "md"])
def test_a_column_is_named_on_one_line_whatever_its_expression(mlxops: Typed, path: Path, form: str) -> None:
    out = mlxops(f"sql 'select 1 +\n 2' --format {form}")[1]

    assert "1 +\\n 2" in out
    assert len(out.splitlines()) == 3


def test_a_long_value_is_cut_in_a_table_and_whole_in_data(mlxops: Typed, path: Path) -> None:
    sql = "sql \"select printf('%.*c', 5000, 'x') as x\""

    assert mlxops(f"{sql} --format table")[1].count("x") < 2100
    assert json.loads(mlxops(f"{sql} --json")[1]) == [{"x": "x" * 5000}]
