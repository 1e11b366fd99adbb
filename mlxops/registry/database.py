"""Opening the registry, transactions, and what a failing database means in words.

The only code that opens SQLite for writing. Connections are in autocommit mode and every transaction begins IMMEDIATE:
a transaction that reads first and writes later fails under contention whatever the timeout.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints, overload

from mlxops.errors import Failed, NotFound
from mlxops.registry.migrations import bring_up_to_date, check_version, newest_version, show_as_newest
from mlxops.registry.rows import JsonArray, JsonObject
from mlxops.resources import folder

if TYPE_CHECKING:
    import sqlite_utils

PATIENCE = 30.0
"""Seconds that a writer waits for another one."""

Parameters = Sequence[object] | Mapping[str, object]

_Row = TypeVar("_Row")


class _Absent:
    """A finder that has no module of these names for the thread that made it, and leaves all others to the next."""

    def __init__(self, *names: str) -> None:
        self._names, self._thread = names, get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._names and get_ident() == self._thread:
            raise ModuleNotFoundError(f"no module named {name!r} is to be loaded here", name=name)


def _sqlite_utils() -> Any:
    """The package, which does without pandas and numpy where they are not loaded already.

    It would import them wherever they are installed, in twice its own time, for values that no table here has. Another
    thread can import them meanwhile.
    """
    if "sqlite_utils" in sys.modules:
        return import_module("sqlite_utils")
    absent: Any = _Absent("pandas", "numpy")
    # new lists: a thread that goes through the one before must not skip a finder
    sys.meta_path = [absent, *sys.meta_path]
    try:
        return import_module("sqlite_utils")
    finally:
        sys.meta_path = [finder for finder in sys.meta_path if finder is not absent]


class Registry:
    """An open registry. Its connection is in autocommit mode, and one thread at a time uses it.

    `guard` is called in every transaction before anything is written; what it raises undoes the transaction.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.guard: Callable[[sqlite3.Connection], None] | None = None
        self.name_ids: dict[str, int] = {}
        self.created_ms: dict[int, float] = {}
        self._tables: sqlite_utils.Database | None = None

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; nothing is pending, since every write has committed."""
        self.connection.close()

    def reconnect(self, connection: sqlite3.Connection) -> None:
        """Use another connection from now on, whatever file it is to; the one before is the caller's to close."""
        self.connection = connection
        self.name_ids.clear()
        self.created_ms.clear()
        self._tables = None

    @property
    def tables(self) -> sqlite_utils.Database:
        """The same connection as a sqlite-utils database, whose writes join an open `transaction()`."""
        if self._tables is None:
            self._tables = _sqlite_utils().Database(self.connection, recursive_triggers=False, execute_plugins=False)
        return self._tables

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing, committed when the block ends; `durable` also outlives a power cut.

        Raises `Failed` where the disk or the file is at fault; the database stays usable.
        """
        connection = self.connection
        try:
            if durable:
                connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            if self.guard is not None:
                self.guard(connection)
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            # names added in the lost transaction have lost their ids
            self.name_ids.clear()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and (failed := failure(error, self.path)):
                raise failed from error
            raise
        finally:
            if durable:
                connection.execute("PRAGMA synchronous=NORMAL")

    @overload
    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]: ...

    @overload
    def rows(self, sql: str, parameters: Parameters = (), *, of: type[_Row]) -> list[_Row]: ...

    def rows(self, sql: str, parameters: Parameters = (), *, of: Any = None) -> list[Any]:
        """All rows of a SELECT; nothing stays open behind it.

        `of` is the TypedDict that the SELECT's columns make up; its JSON columns are parsed.
        """
        try:
            cursor = self.connection.execute(sql, parameters)
            found = cursor.fetchall()
        except sqlite3.Error as error:
            if failed := failure(error, self.path):
                raise failed from error
            raise
        columns = [column[0] for column in cursor.description]
        rows = [dict(zip(columns, values, strict=True)) for values in found]
        parsed = _json_columns(of)
        for row in rows if parsed else ():
            row.update({column: json.loads(row[column]) for column in parsed if row[column] is not None})
        return rows


@cache
def _json_columns(of: Hashable) -> tuple[str, ...]:
    """The columns of a TypedDict that hold JSON; none of None."""
    hints = {} if of is None else get_type_hints(of)
    return tuple(name for name, hint in hints.items() if {hint, *get_args(hint)} & {JsonObject, JsonArray})


def open_registry(path: Path, *, sql: Path | None = None, patience: float = PATIENCE) -> Registry:
    """The registry at `path`, made if it is not there and brought up to this version's schema.

    `sql` is the folder with `migrations/` and `views/`, the one shipped unless given; `patience` is how many seconds
    a write waits for another process. Any number of processes may do this at once. Raises `Refused` for a newer
    database or another program's, `Failed` where it cannot be opened.
    """
    # STRICT tables came with 3.37, JSON functions that are always there with 3.38
    if sqlite3.sqlite_version_info < (3, 38):
        raise Failed(f"this Python has SQLite {sqlite3.sqlite_version}, and the registry needs 3.38 or newer")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"cannot make the folder of {str(path)!r}: {error.strerror}", hint=_ELSEWHERE) from error
    deadline = time.monotonic() + patience
    while True:
        try:
            return Registry(path, _connect_for_writing(path, sql or folder("db"), patience))
        except sqlite3.Error as error:
            failed = failure(error, path)
            if not failed:
                raise
            if not _is_busy(error) or time.monotonic() > deadline:
                raise failed from error
            # changing to WAL ignores the busy timeout while another process writes
            time.sleep(0.01)


def _connect_for_writing(path: Path, sql: Path, patience: float) -> sqlite3.Connection:
    # a training hands its connection to the thread that waits for a registry that is away, and takes it back
    connection = sqlite3.connect(path, isolation_level=None, timeout=patience, check_same_thread=False)
    try:
        check_version(connection, path, sql)
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")
        sync_as_promised(connection)
        # after a reader has held the log open, give its space back
        connection.execute("PRAGMA journal_size_limit=67108864")
        bring_up_to_date(connection, path, sql)
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def sync_as_promised(connection: sqlite3.Connection) -> None:
    """Have a connection sync as each that writes must: any of them can be the one that brings the log into the file."""
    connection.execute("PRAGMA synchronous=NORMAL")
    # only macOS has it: there an fsync alone stops at the drive's cache
    connection.execute("PRAGMA fullfsync=ON")


def open_read_only(path: Path, *, patience: float = PATIENCE, is_foreign: bool = False) -> Registry:
    """The registry at `path` for reading alone, as it is: nothing is made, migrated or written.

    One of an older schema is shown with this version's tables, columns and views.

    In a folder that cannot be written and has no log beside the database it is opened as immutable, since reading a
    database in WAL mode otherwise makes two files; `is_foreign`, of a project that is not at work here, in any folder
    without such a log. Raises `NotFound` where there is none, `Refused` for a newer one.
    """
    connection = _connect_read_only(path, patience, is_foreign=is_foreign)
    try:
        version = check_version(connection, path, folder("db"))
        if version == 0:
            raise _not_there(path)
        if version < newest_version(folder("db")):
            show_as_newest(connection, version, folder("db"))
    except sqlite3.Error as error:
        connection.close()
        if failed := failure(error, path):
            raise failed from error
        raise
    except BaseException:
        connection.close()
        raise
    return Registry(path, connection)


def _connect_read_only(path: Path, patience: float = PATIENCE, *, is_foreign: bool = False) -> sqlite3.Connection:
    """A connection that cannot write, to a database that is there."""
    if not path.is_file():
        raise _not_there(path)
    log = path.with_name(path.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    immutable = not has_log and (is_foreign or not os.access(path.parent, os.W_OK))
    address = path.resolve().as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro")
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)
    except sqlite3.Error as error:
        raise failure(error, path) or error from error
    connection.execute("PRAGMA query_only=ON")
    return connection


def _not_there(path: Path) -> NotFound:
    return NotFound(f"there is no registry {str(path)!r}", hint="the first `inv lora` makes it")


def may_write(path: Path) -> bool:
    """Whether the registry there and the files that SQLite puts beside it may be written."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def identity(path: Path) -> Hashable:
    """What names the file that is there now, None where there is none.

    In a folder that is read-only it is opened as one that never changes: then it is what tells whether it has.
    """
    found = _stat(path)
    if found is None or os.access(path.parent, os.W_OK):
        return found and found.st_ino
    log = _stat(path.with_name(path.name + "-wal"))
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in (found, log) if each)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # whoever opens it says why
        return None


def data_version(db: Registry) -> int:
    """A number that changes when another connection has written; asking costs microseconds."""
    return int(db.connection.execute("PRAGMA data_version").fetchone()[0])


_ELSEWHERE = "MLXOPS_DB=FILE, or registry.path in invoke.yaml, puts the registry elsewhere"


def failure(error: sqlite3.Error, path: Path) -> Failed | None:
    """What a person is told when disk, file or another process is at fault; None where the code is."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    name = repr(str(path))
    match code & 0xFF:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return Failed(f"cannot write {name}: {error}", hint="free some space; what was recorded before is safe")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Failed(f"cannot write {name}: the file or its folder is read-only", hint=_ELSEWHERE)
        case sqlite3.SQLITE_CANTOPEN:
            return Failed(f"cannot open {name}: {error}", hint=_ELSEWHERE)
        case sqlite3.SQLITE_NOTADB:
            return Failed(f"{name} is not a registry: {error}", hint=f"move it away; {_ELSEWHERE}")
        case sqlite3.SQLITE_CORRUPT:
            return Failed(
                f"{name} is damaged: {error}",
                hint=f"sqlite3 {path.name} .recover saves what can be read; .mlxops/backups may hold a copy",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return Failed(f"another process keeps {name} locked", hint="end it, or wait for it, and run this again")
    return None


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
