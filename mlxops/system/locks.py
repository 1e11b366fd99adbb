"""Locks on open files, which the kernel frees however their process ends; some file systems know none."""

from __future__ import annotations

import errno
import fcntl

_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTTY)
"""What file systems without locks say: shares of other machines, and FAT and FUSE by some drivers."""


class CannotLock(OSError):
    """The file system knows no locks."""


def take(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool:
    """Lock an open file or folder, having waited for who has it if told to; False where another has it.

    Raises `CannotLock` where its file system knows no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise CannotLock(error.errno, error.strerror) from error
    return True
