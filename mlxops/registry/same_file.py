"""Whether the file of a registry is still the one that was opened, and leaving one that is not, with its log.

SQLite trusts the path: it writes on into a file that was removed, and opens a new file with the log of the one before,
which damages it. So a training compares device and inode, and takes its own log away before anything else is opened.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlxops.system import locks

_BESIDE = ("-wal", "-shm")


@dataclass(frozen=True)
class OpenedFile:
    """A registry's file as it was opened: device and inode, its own and those of the log and index beside it."""

    path: Path
    place: tuple[int, int]
    beside: tuple[tuple[int, int] | None, ...]

    def size(self) -> int:
        """The file's bytes, 0 where the path leads to no file or to another one; costs one call of the system."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - half the time of Path.stat, and asked in every step
        except OSError:
            return 0
        return found.st_size if (found.st_dev, found.st_ino) == self.place else 0


def opened(path: Path) -> OpenedFile:
    """The file that is at `path`, with what is beside it; raises OSError where there is none."""
    found = path.stat()
    return OpenedFile(path, (found.st_dev, found.st_ino), tuple(map(_place, _beside(path))))


@contextmanager
def changing_over(folder: Path) -> Iterator[None]:
    """Keep other trainings that lost the same registry from taking a log away or opening a file meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(locks.CannotLock):
            locks.take(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def leave(file: OpenedFile, connection: sqlite3.Connection) -> bool:
    """Remove the log and the index of a file that is no longer at its path from there, if they are still its own.

    What the log holds goes into that file, wherever it was moved, and the connection can still read it. One that was
    written over in its place gets nothing, and what is there becomes another file; False then: nothing can be read.
    """
    is_readable = _place(file.path) != file.place
    if not is_readable:
        # closing would write the log into what stands there now, which SQLite does not do to another file
        beside = file.path.with_name(f".{file.path.name}.{os.getpid()}.partial")
        shutil.copyfile(file.path, beside)
        beside.replace(file.path)
    else:
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path, place in zip(_beside(file.path), file.beside, strict=True):
        if place is not None and _place(path) == place:
            path.unlink(missing_ok=True)
    return is_readable


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in _BESIDE]


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
