"""Forcing what was written to the disk."""

from __future__ import annotations

import fcntl
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
