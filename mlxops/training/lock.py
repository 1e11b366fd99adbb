"""The lock on a run's folder: held by the attempt at work, freed by the kernel when that process ends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlxops.errors import Busy, Failed
from mlxops.system import locks

NAME = ".lock"

# who only asks whether a lock is held has it shared for an instant, which must not look like work
_TRIES, _BETWEEN_TRIES = 5, 0.01


@contextmanager
def hold(path: Path, holder: Mapping[str, Any], *, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `path` and say in it who does.

    Raises `Busy` naming the holder where another live process has it, unless told to wait, and `Failed` where the
    file cannot be written, or not be locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Failed(f"the lock {str(path)!r} cannot be written: {error.strerror}") from error
    try:
        if not _take(descriptor, path, wait=wait):
            raise busy(path, what)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(dict(holder)).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, *, wait: bool) -> bool:
    try:
        for _ in range(_TRIES):
            if locks.take(descriptor, wait=wait):
                return True
            time.sleep(_BETWEEN_TRIES)
    except locks.CannotLock as error:
        where = f"{str(path.parent)!r} is on a file system without locks ({error.strerror})"
        raise Failed(
            f"{where}, so two trainings could write there at once", hint="train in a folder on a disk of this machine"
        ) from error
    return False


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock file at `path`; none does where files cannot be locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not locks.take(descriptor, shared=True)
    except locks.CannotLock:
        return False
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> dict[str, Any]:
    """What the process that holds the lock file at `path`, or held it last, said of itself; empty where nothing is."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def say(path: Path, **facts: Any) -> None:
    """Add to what the holder of the lock file at `path` says of itself, which only it may do."""
    content = json.dumps({**holder_of(path), **facts}).encode()
    with suppress(OSError), path.open("r+b") as file:  # nobody depends on it where the folder is gone
        file.write(content)


def busy(path: Path, what: str) -> Busy:
    """The error that names who holds the lock file at `path`, or held it last."""
    said = holder_of(path)
    is_known = {"pid", "host", "since"} <= said.keys()
    words = f"process {said['pid']} on {said['host']} since {said['since']}" if is_known else "another process"
    return Busy(
        f"{what} is being worked on by {words}",
        hint="`inv monitor` shows it; `--new` with no `--name` or `--adapter-path` of its own starts another run",
    )
