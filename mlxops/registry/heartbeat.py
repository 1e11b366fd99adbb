"""The sign of life of an attempt, from a thread and a connection of its own."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from types import TracebackType


class Heartbeat:
    """Beats for an attempt every so many seconds while the block runs, long native calls included.

    A beat that fails is tried again at the next and never reaches the training; `beaten` is set by one that succeeds.
    """

    def __init__(self, path: Path, attempt_id: int, every: float = 10.0) -> None:
        self.beaten = threading.Event()
        self._address = path.resolve().as_uri() + "?mode=rw"
        self._attempt_id = attempt_id
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
            try:
                self._beat()
            except sqlite3.Error:
                continue
            self.beaten.set()

    def _beat(self) -> None:
        # mode=rw: a registry that was deleted is not made again; a connection a beat costs less than 1 ms
        with closing(sqlite3.connect(self._address, uri=True, isolation_level=None, timeout=self._every)) as connection:
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "UPDATE attempts SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
                " WHERE id = ? AND ended_at IS NULL",
                (self._attempt_id,),
            )
