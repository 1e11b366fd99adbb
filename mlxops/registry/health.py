"""Whether a registry is in order, looked at without writing to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlxops.errors import MlxopsError, NotFound
from mlxops.registry.database import Registry, failure, open_read_only
from mlxops.registry.migrations import newest_version
from mlxops.registry.monitor import attempts_at_work
from mlxops.resources import folder

_MOST = 5  # problems that are told


@dataclass(frozen=True, kw_only=True)
class RegistryHealth:
    """What is known of a registry. `error` is why it cannot be read, with its `hint`; `is_there` is false of none.

    `problems` are those of SQLite's own check and of rows that point at none. `dead` are runs that are recorded as at
    work while their process is proven dead, `silent` those that gave no sign of life for a minute, or are another
    machine's.
    """

    path: str
    is_there: bool
    error: str | None = None
    hint: str | None = None
    schema: int = 0
    newest_schema: int = 0
    bytes: int = 0
    problems: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether it can be read as this version writes it."""
        return self.is_there and self.error is None and self.schema == self.newest_schema


def health(path: Path) -> RegistryHealth:
    """Look at a registry as it is. Reads the whole file, which takes a second per gigabyte or so."""
    newest = newest_version(folder("db"))
    try:
        with closing(open_read_only(path)) as db:
            return _look(db, path, newest)
    except NotFound:
        return RegistryHealth(path=str(path), is_there=False, newest_schema=newest)
    except MlxopsError as error:
        return RegistryHealth(path=str(path), is_there=True, error=error.message, hint=error.hint, newest_schema=newest)


def _look(db: Registry, path: Path, newest: int) -> RegistryHealth:
    schema = int(db.connection.execute("PRAGMA user_version").fetchone()[0])
    try:
        problems = [row[0] for row in db.connection.execute(f"PRAGMA integrity_check({_MOST:d})") if row[0] != "ok"]
        broken = len(db.connection.execute("PRAGMA foreign_key_check").fetchall())
        at_work = attempts_at_work(db)
        names = {row["id"]: row["name"] for row in db.rows("SELECT id, name FROM runs WHERE status = 'running'")}
    except sqlite3.Error as error:
        raise failure(error, path) or error from error
    if broken:
        problems.append(f"rows that point at none: {broken}")
    dead = {row["run_id"] for row in at_work if row["is_dead"]}
    silent = {row["run_id"] for row in at_work if not row["is_beating"]} - dead
    return RegistryHealth(
        path=str(path),
        is_there=True,
        schema=schema,
        newest_schema=newest,
        bytes=path.stat().st_size,
        problems=tuple(problems),
        dead=tuple(name for number, name in names.items() if number in dead),
        silent=tuple(name for number, name in names.items() if number in silent),
    )
