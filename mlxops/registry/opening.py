"""Opening the registry for a task: for reading, for writing, with dead attempts closed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from mlxops.errors import NotFound
from mlxops.registry.attempts import close_dead_attempts
from mlxops.registry.database import Registry, may_write, open_read_only, open_registry
from mlxops.registry.migrations import newest_version
from mlxops.registry.monitor import try_to_close_dead_attempts
from mlxops.resources import folder

Opening = Callable[[Path], AbstractContextManager[Registry]]

_PATIENCE = 1.0  # seconds that whoever only reads waits for a writer


@contextmanager
def reading(path: Path) -> Iterator[Registry]:
    """The registry for reading, dead attempts closed before where this may be written and nobody else writes long."""
    if path.is_file() and may_write(path):
        open_registry(path).close()  # brought up to date
        try_to_close_dead_attempts(path, _PATIENCE)
    with open_read_only(path) as db:
        yield db


def migrate_older(path: Path) -> None:
    """Migrate a registry that an older mlxops made, where it may be written. Any other is left as it is."""
    if not path.is_file() or not may_write(path):
        return
    with suppress(NotFound):  # an empty file
        with open_read_only(path) as db:
            (version,) = db.rows("SELECT user_version AS version FROM pragma_user_version")
        if version["version"] < newest_version(folder("db")):
            open_registry(path).close()


@contextmanager
def writing(path: Path) -> Iterator[Registry]:
    """The registry that is there, for writing, dead attempts closed before; raises `NotFound` and makes none."""
    open_read_only(path).close()
    with open_registry(path) as db:
        close_dead_attempts(db)
        yield db
