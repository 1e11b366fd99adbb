"""Files that macOS hides: the flag that it sets in dot-folders that it syncs, and that Python 3.12 and newer obey."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_HIDDEN = getattr(stat, "UF_HIDDEN", 0x8000)


def is_hidden(path: Path) -> bool:
    """Whether a file has the flag; never on a system without flags."""
    return bool(getattr(os.lstat(path), "st_flags", 0) & _HIDDEN)


def show(path: Path) -> None:
    """Take the flag away."""
    if is_hidden(path):
        # both are there on macOS alone
        os.chflags(path, os.lstat(path).st_flags & ~_HIDDEN)  # type: ignore[attr-defined]
