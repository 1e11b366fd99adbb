"""Bringing a database up to this version's schema: migrations once and whole, views whenever their text changed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from mlxops import files
from mlxops.errors import Failed, Refused

_ADDED_COLUMN = re.compile(r"ALTER TABLE (?P<table>\w+) ADD COLUMN (?P<column>\w+) ")

APPLICATION_ID = 0x6D6C786F
"""`mlxo`, in the header of the file: a database without it is another program's."""


def check_version(connection: sqlite3.Connection, path: Path, sql: Path) -> int:
    """The schema's version, 0 for an empty file; raises `Refused` for a newer one and for another program's file."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        # another process may have made it between these statements
        if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
            return check_version(connection, path, sql)
        raise Refused(
            f"{str(path)!r} is a database of another program",
            hint="MLXOPS_DB=FILE, or registry.path in invoke.yaml, names another file",
        )
    known = len(_migrations(sql))
    if version > known:
        raise Refused(
            f"{str(path)!r} was written by a newer mlxops (schema {version}; this one knows {known})",
            hint="update mlxops, or use the environment of the project",
        )
    return version


def newest_version(sql: Path) -> int:
    """The version of the schema that this mlxops writes."""
    return len(_migrations(sql))


def bring_up_to_date(connection: sqlite3.Connection, path: Path, sql: Path) -> None:
    """Apply the migrations that are missing and recreate the views that changed, all in one transaction.

    A database with an older schema is copied to `.mlxops/backups/` beside it first.
    """
    migrations = _migrations(sql)
    views = _views(sql)
    if check_version(connection, path, sql) == len(migrations) and not _changed(connection, views):
        return
    # rebuilding a table is only possible without; the check before COMMIT makes up for it
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = check_version(connection, path, sql)
        if 0 < version < len(migrations):
            _back_up(path, version)
        if version < len(migrations):
            # a view over a column that moves would stop the migration
            _drop(connection, _present(connection).keys() & views.keys())
            for migration in migrations[version:]:
                for statement in _statements(migration.read_text()):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID:d}")
            connection.execute(f"PRAGMA user_version={len(migrations):d}")
        changed = _changed(connection, views)
        _drop(connection, _present(connection).keys() & changed)
        for name in sorted(changed):
            connection.execute(views[name])
        if broken := connection.execute("PRAGMA foreign_key_check").fetchall():
            raise Failed(f"{str(path)!r} has {len(broken)} rows that point at rows which are not there")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def show_as_newest(connection: sqlite3.Connection, version: int, sql: Path) -> None:
    """Have a connection that only reads see an older database with this version's tables, columns and views.

    They are the connection's own: columns that were added since hold NULL, tables nothing.
    """
    # a change of it would drop what is made here
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA query_only=OFF")
    added: dict[str, list[str]] = {}
    for migration in _migrations(sql)[version:]:
        for statement in map(_without_comments, _statements(migration.read_text())):
            if column := _ADDED_COLUMN.match(statement):
                added.setdefault(column["table"], []).append(column["column"])
            elif statement.startswith("CREATE TABLE "):
                connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
    for table, columns in added.items():
        more = "".join(f', NULL AS "{column}"' for column in columns)
        connection.execute(f'CREATE TEMP VIEW "{table}" AS SELECT *{more} FROM main."{table}"')
    views = _views(sql)
    for name in sorted(_changed(connection, views)):
        connection.execute(views[name].replace("CREATE VIEW", "CREATE TEMP VIEW", 1))
    connection.execute("PRAGMA query_only=ON")


def _without_comments(statement: str) -> str:
    return "".join(line for line in statement.splitlines(keepends=True) if not line.startswith("--")).strip()


def _migrations(sql: Path) -> list[Path]:
    return sorted((sql / "migrations").glob("[0-9][0-9][0-9]_*.sql"))


def _views(sql: Path) -> dict[str, str]:
    """The text of each view from its CREATE on, which is what SQLite keeps of it."""
    texts = {file.stem: file.read_text() for file in files.matching(sql / "views", "*.sql")}
    return {name: text[text.index("CREATE VIEW") :].rstrip().removesuffix(";") for name, text in texts.items()}


def _present(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'view'").fetchall())


def _changed(connection: sqlite3.Connection, views: dict[str, str]) -> set[str]:
    present = _present(connection)
    return {name for name, text in views.items() if present.get(name) != text}


def _drop(connection: sqlite3.Connection, views: set[str]) -> None:
    for name in views:
        connection.execute(f'DROP VIEW "{name}"')


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending


def _back_up(path: Path, version: int) -> None:
    """Copy the database while this process keeps writers out. The copy is one plain file without a log."""
    try:
        (path.parent / ".mlxops" / "backups").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"cannot back up {str(path)!r} before its migration: {error.strerror}") from error
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = path.parent / ".mlxops" / "backups" / f"{path.stem}-schema-{version}-{stamp}.db"
    beside = target.with_suffix(".partial")
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)) as source:
        with closing(sqlite3.connect(beside)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        beside.replace(target)
