"""The sign of life of an attempt, from a thread and a connection of its own."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType

from mlxops.registry import same_file
from mlxops.registry.away import Place

_PATIENCE = 1.0  # seconds, which an end that comes meanwhile waits for


class Heartbeat:
    """Beats for an attempt every so many seconds while the block runs, long native calls included.

    A beat that fails is tried again at the next and never reaches the training; `beaten` is set by one that succeeds.
    `place` says where the attempt is by then, None while the registry is away; unless given, it stays where it is.
    """

    def __init__(
        self,
        path: Path,
        attempt_id: int,
        every: float = 10.0,
        place: Callable[[], Place | None] | None = None,
    ) -> None:
        self.beaten = threading.Event()
        stays = Place(same_file.opened(path), 0, attempt_id)
        self._place = place or (lambda: stays)
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            place = self._place()
            try:
                if place is not None and self._has_beaten(place):
                    self.beaten.set()
            except sqlite3.Error:
                continue

    def _has_beaten(self, place: Place) -> bool:
        # mode=rw: a registry that was deleted is not made again; a connection a beat costs less than 1 ms
        address, patience = place.file.path.resolve().as_uri() + "?mode=rw", min(self._every, _PATIENCE)
        with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)) as connection:
            # connecting opens the file, and the first statement the log beside it, which may be another file's
            if not place.file.size():
                return False
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "UPDATE attempts SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
                " WHERE id = ? AND pid = ? AND ended_at IS NULL",
                (place.attempt_id, os.getpid()),
            )
        return True
