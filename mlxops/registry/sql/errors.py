"""What SQLite says of wrong SQL, told with the place in the text and the names that are there."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping

from mlxops.errors import BadRequest, Failed, MlxopsError, Refused
from mlxops.likeness import nearest
from mlxops.registry.sql import text

_SCHEMA = "`inv sql .schema` lists tables, views and columns"
_NAMED = re.compile(
    r"(no such (?:column|table|function)|ambiguous column name|wrong number of arguments to function"
    r"|misuse of (?:aggregate|window function|aggregate function)):? \"?(?:[^ \"]*\.)?([^ .\"()]+)"
)


def explained(connection: sqlite3.Connection, sql: str, message: str) -> MlxopsError:
    """The error that tells a person what is wrong with SQL, from what SQLite said of it."""
    if "one statement at a time" in message:
        second = text.second_statement(sql)
        return _wrong(sql, second, "only one statement at a time is answered", "ask the others one by one")
    if found := re.search(r"binding (?:parameter )?:(\w+)", message):
        return BadRequest(f"the query needs a value for :{found[1]}", hint=f"`--param {found[1]}=VALUE`")
    if message.startswith("Binding ") and "has no name" in message:
        return BadRequest("a parameter has a name here, as in :run, and that one is ?", hint="`--param run=VALUE`")
    if message == "string or blob too big":
        return Failed("a value in the answer, or on the way to it, is too large", hint="narrow it with substr()")
    if message == "incomplete input":
        last = text.tokens(sql)[-1:]
        return _wrong(sql, last[0].stop if last else None, message, _SCHEMA)
    if _is_not_sql(message):
        return _wrong(sql, _first_error(connection, sql), message, _SCHEMA)
    if found := _NAMED.match(message):
        kind, word = found[1], found[2]
        place = _place_of(sql, word, has_owner=f".{word}" in message)
        return _wrong(sql, place, message, _hint_for(connection, sql, kind, word))
    return _wrong(sql, None, message, _SCHEMA)


def would_write(sql: str, message: str) -> bool:
    """Whether SQL that SQLite did not prepare, saying this, was to write: what else is wrong does not matter then."""
    if "one statement at a time" in message or message == "incomplete input" or _is_not_sql(message):
        return False
    return text.verb(sql) in text.WRITING


def refused(sql: str, denied: str | None, name_of_file: str) -> Refused:
    """The error for SQL that would do more than read; `denied` is what SQLite was not allowed to do."""
    verb = text.verb(sql)
    what = verb if verb in text.WRITING else denied or "this"
    return Refused(
        f"SQL here only reads, and {what} would do more",
        hint=f"`sqlite3 {name_of_file} '.backup copy.db'` makes a copy to try things on",
    )


def _is_not_sql(message: str) -> bool:
    return message.endswith(": syntax error") or message.startswith("unrecognized token")


def _wrong(sql: str, offset: int | None, message: str, hint: str) -> BadRequest:
    # SQLite repeats what was typed, which may hold what a terminal obeys
    message = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in message)
    if offset is None:
        return BadRequest(f"SQL: {message}", hint=hint)
    return BadRequest(f"SQL: {text.place(sql, offset)}: {message}\n{text.marked(sql, offset)}", hint=hint)


def _first_error(connection: sqlite3.Connection, sql: str) -> int | None:
    """Where the parser gave up: at the first token up to which the text is wrong already.

    A text that is wrong up to one token is wrong up to every later one, so halving finds it.
    """
    found = text.tokens(sql)
    right, wrong = 0, len(found)
    while right < wrong:
        middle = (right + wrong) // 2
        if _is_misspelt(connection, sql[: found[middle].stop]):
            wrong = middle
        else:
            right = middle + 1
    return found[right].start if right < len(found) else None


def _is_misspelt(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        # the program of a statement, which is thereby not run
        connection.execute(f"EXPLAIN {sql}").close()
    except (sqlite3.Error, sqlite3.Warning) as error:
        return _is_not_sql(str(error))
    return False


def _place_of(sql: str, word: str, *, has_owner: bool) -> int | None:
    """Where a name stands first, as a name and not within a text; best where it has an owner before it, or has none."""
    found = text.tokens(sql)
    places = [
        (before.text == ".", each.start)
        for before, each in zip([text.Token("sign", "", 0), *found], found, strict=False)
        if each.kind in ("word", "name") and each.bare.lower() == word.lower()
    ]
    return next((start for is_owned, start in places if is_owned == has_owner), places[0][1] if places else None)


def _hint_for(connection: sqlite3.Connection, sql: str, kind: str, word: str) -> str:
    if kind == "no such table":
        return _near(word, columns_by_table(connection))
    if kind == "no such function":
        return _near(word, {name for (name,) in connection.execute("SELECT name FROM pragma_function_list")})
    if kind == "ambiguous column name":
        return f"name its table as well, as in runs.{word}"
    if kind != "no such column":
        return _SCHEMA
    known = columns_by_table(connection)
    asked = {each.bare.lower() for each in text.tokens(sql) if each.kind in ("word", "name")}
    here = [column for table, columns in known.items() if table.lower() in asked for column in columns]
    if near := nearest(word, here):
        return f"did you mean {near!r}?"
    if owners := [table for table, columns in known.items() if word.lower() in map(str.lower, columns)]:
        return f"{word!r} is a column of {', '.join(owners)}"
    return _SCHEMA if here else _near(word, {column for columns in known.values() for column in columns})


def _near(word: str, known: Iterable[str]) -> str:
    near = nearest(word.lower(), sorted(known))
    return f"did you mean {near!r}?" if near else _SCHEMA


def columns_by_table(connection: sqlite3.Connection) -> Mapping[str, list[str]]:
    """The columns of every table and view; a view that is broken has none."""
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall()
    return {name: [column for column, _ in columns_of(connection.execute, name)] for (name,) in names}


def columns_of(execute: Callable[..., sqlite3.Cursor], table: str) -> list[tuple[str, str]]:
    """Name and type of every column of a table or view; none of a view that names what is no longer there."""
    try:
        return execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
    except sqlite3.OperationalError:
        return []
