"""SQL that a person typed or saved: read-only for real, interruptible, and explained when it is wrong."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops.errors import BadRequest, Failed, NotFound, Refused
from mlxops.options import nearest
from mlxops.registry.database import failure, open_read_only
from mlxops.resources import folder


@dataclass(frozen=True, slots=True)
class Table:
    """The answer of a query; `more` says that a limit cut it off."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query of `db/queries`: its name, the question it answers, its text and the names of its parameters."""

    name: str
    question: str
    sql: str
    parameters: tuple[str, ...]


def query(
    path: Path,
    sql: str,
    parameters: Mapping[str, Any] | Sequence[Any] = (),
    *,
    timeout: float | None = None,
    limit: int | None = None,
) -> Table:
    """The rows of one SELECT, at most `limit`; Ctrl-C and `timeout` seconds end it.

    Raises `Refused` for what would write, `BadRequest` for SQL that is wrong, with the place in it and the names most
    like it, `Failed` when it took too long.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with open_read_only(path) as db:
        connection = db.connection
        connection.set_authorizer(_only_reading)
        # Python sees a Ctrl-C only when SQLite calls back, here every few milliseconds
        connection.set_progress_handler(lambda: deadline is not None and time.monotonic() > deadline, 100_000)
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            cursor = connection.execute(sql, parameters)
            if cursor.description is None:
                raise BadRequest("there is no SELECT in that SQL", hint="inv sql 'select * from run_summary'")
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_INTERRUPT:
                if deadline is not None and time.monotonic() > deadline:
                    raise Failed(f"the query took longer than {timeout:g} s", hint="narrow it with WHERE") from None
                # the exception of the signal's handler ended in SQLite's callback
                raise KeyboardInterrupt from None
            if str(error) == "not authorized" or code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY):
                raise Refused(
                    f"SQL here only reads, and {_first_word(sql)} would do more",
                    hint=f"sqlite3 {path.name} '.backup copy.db' makes a copy to try things on",
                ) from None
            if isinstance(error, sqlite3.Error) and (failed := failure(error, path)):
                raise failed from error
            connection.set_progress_handler(None, 0)
            raise _explained(connection, sql, str(error)) from None
        columns = tuple(column[0] for column in cursor.description)
    more = limit is not None and len(rows) > limit
    return Table(columns, rows[:limit] if more else rows, more)


_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {
    "application_id", "compile_options", "database_list", "encoding", "foreign_key_check", "foreign_key_list",
    "freelist_count", "function_list", "index_info", "index_list", "index_xinfo", "integrity_check", "page_count",
    "page_size", "quick_check", "table_info", "table_list", "table_xinfo", "user_version",
}  # fmt: skip
_WITH_ARGUMENT = {
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo", "integrity_check",
    "quick_check", "table_info", "table_list", "table_xinfo",
}  # fmt: skip


def _only_reading(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite asks this for each thing a statement would do, while preparing it."""
    allowed = (
        action in _READING
        or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension")
        or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS and (second is None or first in _WITH_ARGUMENT))
        # asked while json_each() or pragma_table_info() declare their columns; the connection cannot write it
        or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _explained(connection: sqlite3.Connection, sql: str, message: str) -> BadRequest:
    """What SQLite said, with the place in the text, and a name that is there and most like the wrong one."""
    if found := re.fullmatch(r"no such column: (?:.*\.)?(.+)", message):
        word, known = found[1], {column for names in _columns(connection).values() for column in names}
    elif found := re.fullmatch(r"no such table: (?:.*\.)?(.+)", message):
        word, known = found[1], set(_columns(connection))
    elif found := re.fullmatch(r'near "(.+)": syntax error', message):
        word, known = found[1], set()
    elif found := re.search(r"binding (?:parameter )?:(\w+)", message):
        hint = f"--param {found[1]}=VALUE"
        return BadRequest(f"the query needs a value for :{found[1]}", hint=hint)
    else:
        return BadRequest(f"SQL: {message}", hint="inv sql .schema lists tables, views and columns")
    places = [place.start() for place in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", sql, re.IGNORECASE)]
    # a syntax error at a word that stands there twice could be at either
    where = f"{_place(sql, places[0])}: " if places and (known or len(places) == 1) else ""
    near = nearest(word, sorted(known))
    hint = f"did you mean {near!r}?" if near else "inv sql .schema lists tables, views and columns"
    return BadRequest(f"SQL: {where}{message}", hint=hint)


def _place(sql: str, offset: int) -> str:
    """A place in a text as people count.

    >>> _place("select", 3)
    'column 4'
    """
    line = sql.count("\n", 0, offset) + 1
    column = offset - (sql.rfind("\n", 0, offset) + 1) + 1
    return f"line {line}, column {column}" if "\n" in sql.strip() else f"column {column}"


def _first_word(sql: str) -> str:
    found = re.match(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w+)", sql, re.DOTALL)
    return found[1].upper() if found else "this"


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table, column in connection.execute(
        """
        SELECT entry.name, info.name FROM sqlite_schema AS entry CROSS JOIN pragma_table_info(entry.name) AS info
        WHERE entry.type IN ('table', 'view')
        """
    ).fetchall():
        found.setdefault(table, []).append(column)
    return found


def saved_queries() -> list[SavedQuery]:
    """The queries of `db/queries` by name."""
    return [_read(file) for file in sorted((folder("db") / "queries").glob("*.sql"))]


def saved_query(name: str) -> SavedQuery:
    """The saved query of that name, or `NotFound` with the nearest."""
    known = {each.name: each for each in saved_queries()}
    if name not in known:
        near = nearest(name, known)
        raise NotFound(
            f"no saved query {name!r}", hint=f"did you mean {near!r}?" if near else "inv sql .queries lists them"
        )
    return known[name]


def _read(file: Path) -> SavedQuery:
    text = file.read_text()
    # texts and comments may hold colons of their own
    code = re.sub(r"'[^']*'|--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    parameters = dict.fromkeys(re.findall(r"(?<![\w:]):([A-Za-z_]\w*)", code))
    return SavedQuery(file.stem, text.splitlines()[0].removeprefix("--").strip(), text, tuple(parameters))


def schema(path: Path) -> list[dict[str, Any]]:
    """The tables and views of a registry, each with `name`, `kind` and `columns` (name and type)."""
    with open_read_only(path) as db:
        return [
            {
                "name": each.name,
                "kind": kind,
                "columns": [{"name": column.name, "type": column.type} for column in each.columns],
            }
            for kind, group in (("view", db.tables.views), ("table", db.tables.tables))
            for each in sorted(group, key=lambda each: each.name)
        ]
