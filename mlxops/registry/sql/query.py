"""SQL that a person typed or saved: read-only for real, bounded in time and memory, and explained when it is wrong.

A query runs in a thread of its own, and the caller waits for it. One call into SQLite can last for hours without
looking up (a search in one long text), and then neither Ctrl-C nor a timeout would end it: the caller leaves it behind.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops.errors import BadRequest, Failed
from mlxops.registry.database import Parameters, failure, open_read_only
from mlxops.registry.sql import text as sql_text
from mlxops.registry.sql.errors import explained, refused, would_write

_MEBIBYTE = 1 << 20
_HEAP = 512 * _MEBIBYTE  # what SQLite may take, sorting included
_ANSWER = 256 * _MEBIBYTE  # what the rows of an answer may take
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 16 * _MEBIBYTE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: _MEBIBYTE,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_GRACE = 0.5  # seconds for a query that was told to stop to close its database
_LOOK_UP = 0.1  # seconds between looks at what signals have said, where they reach another thread


@dataclass(frozen=True, slots=True)
class Table:
    """The answer of a query; `more` says that a limit cut it off."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False


def query(
    path: Path,
    sql: str,
    parameters: Parameters = (),
    *,
    timeout: float | None = None,
    limit: int | None = None,
) -> Table:
    """The rows of one SELECT, at most `limit`; Ctrl-C and `timeout` seconds end it, whatever it is doing.

    Raises `Refused` for what would write, `BadRequest` for SQL that is wrong, with the place in it and the names most
    like it, `Failed` when it took too long or too much memory.
    """
    question = _Question(path, sql, parameters, limit)
    threading.Thread(target=question.answer, daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while not question.done.wait(_LOOK_UP if deadline is None else min(_LOOK_UP, deadline - time.monotonic())):
            if deadline is not None and time.monotonic() >= deadline:
                raise Failed(
                    f"the query took longer than {timeout:g} s",
                    hint="narrow it with WHERE, or give it longer with `--timeout`",
                )
    except BaseException:
        question.stop()
        raise
    if question.error is not None:
        raise question.error
    assert question.table is not None
    return question.table


class _Question:
    """One query, its thread's side: `answer` fills `table` or `error`, then sets `done`."""

    def __init__(self, path: Path, sql: str, parameters: Parameters, limit: int | None) -> None:
        self.path, self.sql, self.parameters, self.limit = path, sql, parameters, limit
        self.table: Table | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.denied: str | None = None
        self._connection: sqlite3.Connection | None = None
        self._is_stopped = False

    def answer(self) -> None:
        """Open the registry, ask, close it; nothing is raised here."""
        try:
            with open_read_only(self.path) as db:
                self._connection = db.connection
                self._guard(db.connection)
                self.table = self._ask(db.connection)
        except BaseException as error:  # raised again where the caller waits
            self.error = error
        finally:
            self.done.set()

    def stop(self) -> None:
        """Tell SQLite to end, and wait a moment for it; what continues in one long call is left to itself."""
        self._is_stopped = True
        if self._connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it has just been closed
                self._connection.interrupt()
        self.done.wait(_GRACE)

    def _guard(self, connection: sqlite3.Connection) -> None:
        # The limit is the process's, and can only be lowered: nothing else here that uses SQLite comes near it.
        connection.execute(f"PRAGMA hard_heap_limit = {_HEAP:d}")
        if ("DEFAULT_MEMSTATUS=0",) not in connection.execute("PRAGMA compile_options").fetchall():
            # Where memory is counted, sorting stays in it: a query without end would fill the disk of a training.
            connection.execute("PRAGMA temp_store = MEMORY")
        for kind, bound in _LIMITS.items():
            connection.setlimit(kind, bound)
        connection.text_factory = lambda text: text.decode(errors="replace")
        # Both are asked often: while a statement is prepared, and while it runs.
        connection.set_authorizer(self._only_reading)
        connection.set_progress_handler(lambda: self._is_stopped, 10_000)

    def _ask(self, connection: sqlite3.Connection) -> Table:
        try:
            # a second semicolon would count as a second statement
            cursor = connection.execute(sql_text.without_end(self.sql), self.parameters)
            if cursor.description is None:
                raise BadRequest("there is no SELECT in that SQL", hint="`inv sql 'select * from run_summary'`")
            rows = self._rows(cursor)
        except (sqlite3.Error, sqlite3.Warning) as error:
            code = getattr(error, "sqlite_errorcode", None)
            is_denied = self.denied or code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY)
            if is_denied or would_write(self.sql, str(error)):
                raise refused(self.sql, self.denied, self.path.name) from None
            if isinstance(error, sqlite3.Error) and (failed := failure(error, self.path)):
                raise failed from error
            raise explained(connection, self.sql, str(error)) from None
        except MemoryError:
            raise _too_large(f"the query needs more than {_HEAP // _MEBIBYTE} MiB of memory") from None
        except UnicodeEncodeError:
            raise BadRequest("SQL and its parameters are texts in UTF-8, and this is none") from None
        except OverflowError:
            raise BadRequest("SQLite takes whole numbers up to 9223372036854775807") from None
        columns = tuple(column[0] for column in cursor.description)
        more = self.limit is not None and len(rows) > self.limit
        return Table(columns, rows[: self.limit] if more else rows, more)

    def _rows(self, cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
        """All rows, or one more than the limit; few enough to be held in memory."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        for row in cursor:
            rows.append(row)
            size += sys.getsizeof(row) + sum(map(sys.getsizeof, row))
            if size > _ANSWER:
                raise _too_large(f"the answer is larger than {_ANSWER // _MEBIBYTE} MiB, after {len(rows):,} rows")
            if self._is_stopped or len(rows) - 1 == self.limit:
                break
        return rows

    def _only_reading(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        """SQLite asks this for each thing a statement would do, while preparing it."""
        if self._is_stopped:
            return sqlite3.SQLITE_DENY
        allowed = (
            action in _READING
            or (action == sqlite3.SQLITE_FUNCTION and second not in _FORBIDDEN_FUNCTIONS)
            or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS and (second is None or first in _WITH_ARGUMENT))
            # asked while json_each() or pragma_table_info() declare their columns; the connection cannot write it
            or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
        )
        if allowed:
            return sqlite3.SQLITE_OK
        if self.denied is None:
            self.denied = _in_words(action, first, second)
        return sqlite3.SQLITE_DENY


def _too_large(message: str) -> Failed:
    return Failed(message, hint="narrow it with WHERE or LIMIT; `inv run.export` writes all points")


def _in_words(action: int, first: str | None, second: str | None) -> str:
    """What was denied, as it would be typed."""
    if action == sqlite3.SQLITE_PRAGMA:
        return f"PRAGMA {first}" + (f" = {second}" if second is not None else "")
    if action == sqlite3.SQLITE_FUNCTION:
        return f"{second}()"
    return _ACTIONS.get(action, "this")


_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer", "edit", "readfile", "writefile"}
_ACTIONS = {
    sqlite3.SQLITE_DELETE: "DELETE",
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_UPDATE: "UPDATE",
    sqlite3.SQLITE_ATTACH: "ATTACH",
}
_PRAGMAS = {
    "application_id", "compile_options", "database_list", "encoding", "foreign_key_check", "foreign_key_list",
    "freelist_count", "function_list", "index_info", "index_list", "index_xinfo", "integrity_check", "page_count",
    "page_size", "quick_check", "table_info", "table_list", "table_xinfo", "user_version",
}  # fmt: skip
_WITH_ARGUMENT = {
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo", "integrity_check",
    "quick_check", "table_info", "table_list", "table_xinfo",
}  # fmt: skip
