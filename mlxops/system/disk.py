"""Forcing what was written to the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

_DISK_SAYS_NO = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
"""What was written may not be there: no other way of syncing makes that good."""

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY, errno.EBADF)
"""What file systems say that sync no folders: SMB, NFS and FAT by some drivers."""


def sync(path: Path) -> None:
    """Force a file's or a folder's content to the disk.

    On macOS `fsync` leaves data in the drive's own cache; `F_FULLFSYNC` does not (fcntl(2) there). Where the file
    system of a volume does not have it (SMB, NTFS and others), `fsync` is what there is, as for a folder nothing.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            _sync_folder(descriptor)
        else:
            _sync_file(descriptor)
    finally:
        os.close(descriptor)


def syncs_fully(path: Path) -> bool:
    """Whether what is written to a file reaches more than the drive's own cache when it is synced; always on Linux."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return full is None or _is_done(descriptor, full)
    finally:
        os.close(descriptor)


def _sync_file(descriptor: int) -> None:
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None or not _is_done(descriptor, full):
        os.fsync(descriptor)


def _is_done(descriptor: int, full: int) -> bool:
    """Sync by `F_FULLFSYNC`; False where the file system has none, an OSError where the disk says no."""
    try:
        fcntl.fcntl(descriptor, full)
    except OSError as error:
        if error.errno in _DISK_SAYS_NO:
            raise
        return False
    return True


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise
