"""Files that are whole or absent: synced to the disk, renamed into place, named by their hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's or a folder's content to the disk.

    On macOS `fsync` leaves data in the drive's own cache; `F_FULLFSYNC` does not (fcntl(2) there).
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is None or path.is_dir():
            os.fsync(descriptor)
        else:
            fcntl.fcntl(descriptor, full)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is whole or absent at any instant."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    beside.replace(path)
    sync(path.parent)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
