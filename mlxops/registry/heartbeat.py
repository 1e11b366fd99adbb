"""The sign of life of an attempt, from a thread and a connection of its own."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mlxops import times
from mlxops.registry import same_file
from mlxops.registry.away import Place
from mlxops.registry.database import sync_as_promised

_PATIENCE = 1.0  # seconds, which an end that comes meanwhile waits for
_GAP = 1.0  # seconds between two beats: each makes monitors read their rows again
_LONGEST = 100 * 365 * 86_400.0  # seconds, beyond which no calendar needs to follow

_BEAT = """
    UPDATE attempts SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    WHERE id = :attempt AND pid = :pid AND ended_at IS NULL
"""

_BEAT_WITH_PROGRESS = """
    UPDATE attempts
    SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), at_iteration = :iteration, step_loss = :step_loss,
        iterations_per_second = :iterations_per_second, tokens_per_second = :tokens_per_second, expected_end_at = :end
    WHERE id = :attempt AND pid = :pid AND ended_at IS NULL
"""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an attempt is now, and when it is expected to end, in seconds from now."""

    iteration: int
    step_loss: float | None
    iterations_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None


class Heartbeat:
    """Beats for an attempt every so many seconds while the block runs, long native calls included.

    A beat that fails is tried again at the next and never reaches the training; `beaten` is set by one that succeeds.
    `place` says where the attempt is by then, None while the registry is away; unless given, it stays where it is.
    `progress` says how far it is by then, None while there is nothing to say.
    """

    def __init__(
        self,
        path: Path,
        attempt_id: int,
        every: float = 10.0,
        place: Callable[[], Place | None] | None = None,
        progress: Callable[[], Progress | None] = lambda: None,
    ) -> None:
        self.beaten = threading.Event()
        stays = Place(same_file.opened(path), 0, attempt_id)
        self._place = place or (lambda: stays)
        self._progress = progress
        self._every = every
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._asked.set()
        self._thread.join()

    def ask(self) -> None:
        """Have it beat soon, because there is something new to say; what asks does not wait."""
        self._asked.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._asked.wait(self._every)
            self._asked.clear()
            if self._stop.is_set():
                return
            place = self._place()
            try:
                if place is not None and self._has_beaten(place):
                    self.beaten.set()
            except sqlite3.Error:
                pass  # the next one may reach it
            self._stop.wait(min(self._every, _GAP))

    def _has_beaten(self, place: Place) -> bool:
        # mode=rw: a registry that was deleted is not made again; a connection a beat costs less than 1 ms
        address, patience = place.file.path.resolve().as_uri() + "?mode=rw", min(self._every, _PATIENCE)
        with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)) as connection:
            # connecting opens the file, and the first statement the log beside it, which may be another file's
            if not place.file.size():
                return False
            sync_as_promised(connection)
            told = self._progress()
            connection.execute(
                _BEAT if told is None else _BEAT_WITH_PROGRESS,
                {"attempt": place.attempt_id, "pid": os.getpid()} | (_columns(told) if told else {}),
            )
        return True


def _columns(told: Progress) -> dict[str, float | str | None]:
    left = told.seconds_left
    return {
        "iteration": told.iteration,
        "step_loss": told.step_loss,
        "iterations_per_second": told.iterations_per_second,
        "tokens_per_second": told.tokens_per_second,
        "end": None if left is None else times.stored_at(time.time() + min(left, _LONGEST)),
    }
