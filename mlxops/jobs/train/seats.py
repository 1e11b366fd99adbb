"""How many monitors watch on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mlxops.system import locks

_SEATS = 64


class Seats:
    """How many watch on this machine: each holds a file locked, and the system frees it however the process ends.

    Without a folder for the files each is alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._own: int | None = None
        self._file = -1

    def take(self) -> None:
        """Hold the first that is free; without a place for the files there are no others to be known."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in range(_SEATS):
                file = os.open(self._folder / str(number), os.O_CREAT | os.O_RDWR, 0o600)
                if _is_free(file):
                    self._own, self._file = number, file
                    return
                os.close(file)

    def leave(self) -> None:
        """Give it back."""
        if self._own is not None:
            os.close(self._file)
            self._own = None

    def count(self) -> int:
        """How many are taken, this one among them, also where it could not be."""
        taken = 1
        if self._folder is None:
            return taken
        for number in range(_SEATS):
            if number == self._own:
                continue
            try:
                file = os.open(self._folder / str(number), os.O_RDWR)
            except OSError:  # so many never watched at once
                break
            taken += not _is_free(file)
            os.close(file)
        return taken


def _is_free(file: int) -> bool:
    try:
        return locks.take(file)
    except locks.CannotLock:  # the others cannot be known
        return True
