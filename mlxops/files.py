"""Files that are whole or absent: synced to the disk, renamed into place, named by their hash; folders to work in."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxops.errors import BadRequest
from mlxops.system import disk, locks

Heard = Callable[[int], object]
_PIECE = 1 << 20  # bytes read at once


def expanded(path: str | Path) -> Path:
    """The path with the home folder that a `~` in front stands for; raises `BadRequest` where there is none."""
    text = os.path.expanduser(path)  # noqa: PTH111 - to a Path ./~name is the same as ~name
    if text.startswith("~"):
        user = text.partition("/")[0].removeprefix("~")
        what = f"there is no user {user!r}" if user else "the home folder is not known: HOME is not set"
        raise BadRequest(what, hint=f"a file or folder of that name is ./{path}")
    return Path(text)


def is_there(path: Path) -> bool:
    """Whether something that can be looked at stands there; False in a folder that may not be entered."""
    try:
        return path.exists()
    except OSError:
        return False


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder whose names have one of these patterns, in order.

    On a disk without room for what a Mac keeps of a file (exFAT, SMB), macOS puts it beside the file, as `._NAME`: such
    files are no one's content and are left out.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not is_put_by_macos(path) and path.is_file())


def is_put_by_macos(path: Path) -> bool:
    """Whether a file is one that macOS put beside another."""
    return path.name.startswith("._")


def place_of(path: Path) -> tuple[int, int] | str:
    """What all paths of one file or folder have in common, however they are spelled; of what is absent, its text."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one place: to the file system, however spelled, or as text where both are absent."""
    return place_of(one) == place_of(other)


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links followed."""
    place, real = place_of(folder), Path(os.path.realpath(path))
    return any(place_of(each) == place for each in (real, *real.parents))


def problem(path: Path, expected: str, heard: Heard | None = None) -> str | None:
    """Read a file through: what keeps it from being the one with this SHA-256 (`expected`), None where nothing does."""
    try:
        found = sha256(path, heard)
    except FileNotFoundError:
        return f"{path.name} is gone"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None if found == expected else f"{path.name} is not what was written (SHA-256)"


def sync(path: Path) -> None:
    """Force a file's or a folder's content to the disk, as far as it can be on this system."""
    disk.sync(path)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write: it takes that place, synced, when the block ends, and goes where that fails."""
    beside = path.with_name(f".{path.name}.{_word()}.partial")
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    finally:
        if os.path.lexists(beside):  # unlike unlink() this does not mind a folder that is none
            beside.unlink()
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is whole or absent at any instant; of several who write it, one wins."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def sha256(path: Path, heard: Heard | None = None) -> str:
    """The SHA-256 of a file's bytes, in hex; `heard` is told how many were read, each time some were."""
    import hashlib  # with OpenSSL behind it: not for those who only list the tasks

    with path.open("rb", buffering=0) as file:
        if heard is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
            heard(len(piece))
        return digest.hexdigest()


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent` to work in, whose name begins with `prefix`; at the end it is removed, if still there.

    Meanwhile it is locked, so that what a killed process left under such a name can be told and is removed first.
    Raises OSError where it cannot be made, or cannot be locked although the file system knows locks.
    """
    waiting = _locked(parent, wait=True)  # so that nobody takes a folder for left that has no lock yet
    try:
        _remove_left(parent, prefix)
        folder = parent / f"{prefix}{_word()}"
        folder.mkdir()
        lock = _locked(folder, wait=False)
        if lock is None and waiting is not None:  # the file system knows locks: others would take it for left
            folder.rmdir()
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
    finally:
        _close(waiting)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(lock)


@contextmanager
def locked(folder: Path, *, without_locks: bool = False) -> Iterator[bool]:
    """Hold a folder while the block runs; False where another process holds it, or it cannot be opened.

    `without_locks` is what is said on a file system that knows none.
    """
    lock = None
    try:
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            is_ours = locks.take(lock)
        except locks.CannotLock:
            is_ours = without_locks
        except OSError:
            is_ours = False
        yield is_ours
    finally:
        _close(lock)


def _remove_left(parent: Path, prefix: str) -> None:
    for folder in parent.iterdir():
        if re.fullmatch(re.escape(prefix) + "[0-9a-f]{8}", folder.name) and not folder.is_symlink():
            lock = _locked(folder, wait=False)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
            _close(lock)


def _locked(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder; None where another process has it, or where the file system knows no locks."""
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        is_ours = locks.take(descriptor, wait=wait)
    except OSError:
        is_ours = False
    if is_ours:
        return descriptor
    _close(descriptor)
    return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _word() -> str:
    """A name that nobody else takes."""
    return os.urandom(4).hex()
