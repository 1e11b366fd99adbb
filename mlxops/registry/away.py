"""Writing a run's entries while the registry may be away: held by another program, full, removed, replaced, read-only.

Once training has begun, a write waits for 50 ms at most. What cannot be written waits in memory, in its order, and a
thread tries once a second until the registry can be written again, writes all of it, and hands its connection over.
Nothing is written by a number alone: each transaction first sees that the file is the one that was opened, and that it
holds this attempt.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlxops import words
from mlxops.errors import Failed, MlxopsError
from mlxops.events import Notice
from mlxops.registry import same_file, waiting
from mlxops.registry.carry_over import add_attempt, carry_over, run_of
from mlxops.registry.database import Registry, open_registry
from mlxops.registry.entries import Entry, write, write_again
from mlxops.registry.rows import AttemptRow, RunRow
from mlxops.registry.runs import set_created
from mlxops.registry.same_file import OpenedFile
from mlxops.registry.waiting import WaitingRun, attempt_of, waiting_run

STEP_PATIENCE = 0.05
"""Seconds that a step waits for another writer."""

_THREAD_PATIENCE = 1.0
END_PATIENCE = 5.0
"""Seconds for which a training that is over tries to write what waits."""

_TRY_EVERY = 1.0
_TRY_AT_THE_END = 0.1
_SILENT = 1.0
"""Seconds for which nothing is said: another training that starts holds the registry for an instant."""

_GUARD = """
    SELECT 1
    FROM attempts JOIN runs ON runs.id = attempts.run_id
    WHERE attempts.id = ? AND started_at = ? AND pid = ? AND runs.id = ? AND fingerprint = ?
"""


class NotThere(Failed):
    """The registry that was opened is no longer there, or no longer holds this attempt."""


@dataclass(frozen=True)
class Place:
    """Where an attempt is written: the file, and the numbers of run and attempt in it."""

    file: OpenedFile
    run_id: int
    attempt_id: int


class Writer:
    """Writes the entries of one attempt; from `begin` on they wait where the registry is away.

    `folder` is the run's, where a checkpoint carries what waits; `restore` gives a registry that does not hold the run
    its row from that folder and returns its number; `say` is told when the registry is away and when it is back.
    """

    def __init__(
        self,
        db: Registry,
        run_id: int,
        attempt_id: int,
        *,
        folder: Path | None = None,
        restore: Callable[[Registry], int] | None = None,
        say: Callable[[Notice], None] = lambda notice: None,
        clock: Callable[[], float] = time.monotonic,
        in_background: bool = True,
    ) -> None:
        self._db = db
        self._folder, self._restore, self._say, self._clock = folder, restore, say, clock
        self._in_background = in_background
        self._place = Place(same_file.opened(db.path), run_id, attempt_id)
        self._has_begun = self._is_waiting = self._is_said = False
        self._attempt: AttemptRow
        self._run: WaitingRun
        self._size = 0
        self._is_readable, self._is_past_kept = True, False
        self._since, self._reason = 0.0, ""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        # what the thread and the training share: while entries wait, the connection is the thread's
        self._lock = threading.Lock()
        self._has_returned = False
        self._queue: deque[Entry] = deque()
        self._lines: list[str] = []  # all that waited since the registry went away, as files keep it
        self._kept: tuple[int, int] | None = None  # the newest file's iteration, and the first of its lines
        self._unkept = 0  # the first line that no file keeps
        self.has_come_back = False

    @property
    def place(self) -> Place | None:
        """Where the attempt is written now, None while the registry is away."""
        return None if self._is_waiting else self._place

    def begin(self) -> None:
        """From here on no write waits long and none fails: the first step is next."""
        (run,) = self._db.rows("SELECT * FROM runs WHERE id = ?", (self._place.run_id,), of=RunRow)
        (self._attempt,) = self._db.rows(
            "SELECT * FROM attempts WHERE id = ?", (self._place.attempt_id,), of=AttemptRow
        )
        self._run = waiting_run(run, self._attempt)
        self._size = self._place.file.size()
        self._db.guard = self._check
        self._set_patience(STEP_PATIENCE)
        self._has_begun = True

    def __call__(self, entry: Entry) -> None:
        """Write an entry, or have it wait."""
        if self._is_waiting:
            self.look()
            if self._is_waiting and self._has_queued(entry):
                return
            self.look()
        try:
            write(self._db, self._place.run_id, self._place.attempt_id, entry)
            if self._has_begun:
                self._check_file()  # else it went into a file that nobody will open again
        except (Failed, sqlite3.DatabaseError) as error:
            if not self._has_begun:
                raise
            self._leave(error, entry)

    def look(self) -> None:
        """See whether the registry is still there, or there again; costs a few microseconds."""
        if self._has_returned:
            self._take_up()
        if self._is_waiting:
            if not self._is_said and self._clock() - self._since >= _SILENT:
                self._say_away()
        elif self._has_begun:
            try:
                self._check_file()
            except NotThere as error:
                self._leave(error)

    def keep(self, iteration: int) -> None:
        """Write what waits beside the checkpoint of an iteration; raises OSError where the disk does not take it."""
        with self._lock:
            if not self._is_waiting or self._has_returned or self._folder is None:
                return
            first = self._kept[1] if self._kept is not None and self._kept[0] == iteration else self._unkept
            waiting.keep(self._folder, iteration, self._run, self._lines[first:])
            self._kept, self._unkept = (iteration, first), len(self._lines)

    def finish(self, saved_at: int) -> str | None:
        """Write what waits, trying for `END_PATIENCE` seconds; None if nothing waits any more, else what is in the way.

        What still waits then is kept beside the newest checkpoint, that of the iteration `saved_at` if it is not 0.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(END_PATIENCE + 2 * _THREAD_PATIENCE)
        if self._thread is None or not self._thread.is_alive():  # else it is stuck, and the connection is its own
            deadline = self._clock() + END_PATIENCE
            while self._is_waiting and not self.try_to_return() and self._clock() < deadline:
                time.sleep(_TRY_AT_THE_END)
        if self._has_returned:
            self._take_up()
        self._db.guard = None
        if not self._is_waiting:
            return None
        # a run that diverged goes back, and what was kept beside the checkpoints since then stays
        newest = max(saved_at, self._kept[0] if self._kept is not None else 0)
        if newest > 0:
            with suppress(OSError):  # the checkpoint itself is whole
                self.keep(newest)
        return self._reason

    # ---- what the training does -------------------------------------------------------------------------------------

    def _has_queued(self, entry: Entry) -> bool:
        """Have an entry wait; False where all that waited has been written in this instant."""
        with self._lock:
            if self._has_returned:
                return False
            self._queue.append(entry)
            self._lines.append(entry.to_json())
        return True

    def _leave(self, error: Exception, *entries: Entry) -> None:
        """From here on entries wait, these first."""
        self._is_waiting, self._is_said, self._since, self._reason = True, False, self._clock(), _words(error)
        self._queue.extend(entries)
        self._lines, self._kept, self._unkept = [entry.to_json() for entry in entries], None, 0
        if isinstance(error, NotThere):
            self._say_away()
        if self._in_background and not self._stop.is_set():
            self._thread = threading.Thread(target=self._wait_for_it, name="registry", daemon=True)
            self._thread.start()

    def _say_away(self) -> None:
        self._is_said = True
        message = f"the registry is away: {self._reason}; training continues, and what the registry misses is kept"
        self._say(Notice(kind="registry away", message=message, level="warning"))

    def _take_up(self) -> None:
        self._set_patience(STEP_PATIENCE)
        self._is_waiting = self._has_returned = False
        self.has_come_back = True
        if self._is_said:
            message = f"the registry is back and complete: {words.count(len(self._lines))} waiting entries are in it"
            self._say(Notice(kind="registry back", message=message))

    # ---- what the thread does, or the training at its end -----------------------------------------------------------

    def _wait_for_it(self) -> None:
        while not self.try_to_return() and not self._stop.wait(_TRY_EVERY):
            pass

    def try_to_return(self) -> bool:
        """Write all that waits, if the registry lets it; whether nothing waits any more."""
        try:
            self._find()
            self._write_all()
        except (MlxopsError, sqlite3.DatabaseError, OSError) as error:
            self._reason = _words(error)
            if _is_full(error):
                self._empty_the_log()
            return False
        return True

    def _empty_the_log(self) -> None:
        """Have the log's content be in the file: it is many times as large, and its space is then free for the rest."""
        with suppress(sqlite3.Error):
            self._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write_all(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    if self._folder is not None:
                        waiting.remove(self._folder)
                    self._has_returned = True
                    return
                entry = self._queue[0]
            write_again(self._db, self._place.run_id, self._place.attempt_id, entry)
            self._check_file()
            with self._lock:
                self._queue.popleft()

    def _find(self) -> None:
        """Have a registry open that holds this attempt: the same as before, the one that is there now, or a new one."""
        try:
            self._check_file()
        except NotThere:
            try:
                self._change_over()
            except (MlxopsError, sqlite3.DatabaseError, OSError):
                self._keep_past()
                raise
            return
        self._set_patience(_THREAD_PATIENCE)
        if not self._holds(self._db.connection):
            self._db.guard = None
            try:
                self._place = self._placed(self._db)
            finally:
                self._db.guard = self._check

    def _change_over(self) -> None:
        """Leave the file that was removed or replaced, and take this run into the one that is at its path now."""
        path, old = self._db.path, self._db.connection
        if not path.parent.is_dir():
            raise NotThere(f"the folder {str(path.parent)!r} is gone")
        with same_file.changing_over(path.parent):
            self._is_readable &= same_file.leave(self._place.file, old)
            db = open_registry(path, patience=_THREAD_PATIENCE)
        try:
            if self._is_readable:
                carry_over(self._db, self._place.run_id, db)
            place = self._placed(db)
        except BaseException:
            db.close()
            raise
        self._db.reconnect(db.connection)
        self._place, self._size = place, place.file.size()
        self._is_readable, self._is_past_kept = True, False
        old.close()

    def _keep_past(self) -> None:
        """Have the run's folder hold what the removed file does, which goes with this process."""
        if self._folder is None or self._is_past_kept or not self._is_readable:
            return
        with suppress(MlxopsError, sqlite3.Error, OSError):
            waiting.keep_past(self._folder, self._db, self._place.run_id)
            self._is_past_kept = True

    def _placed(self, db: Registry) -> Place:
        """Where this attempt is in a registry; a run that is not there gets its row from its folder."""
        run_id = run_of(db, self._run["name"], self._run["fingerprint"])
        if run_id is None:
            if self._restore is None:
                raise NotThere("the registry no longer holds this run")
            run_id = self._restore(db)
            set_created(db, run_id, self._run["created_at"])
        attempt_id = attempt_of(db, run_id, self._run) or add_attempt(db, run_id, self._attempt)
        (run,) = db.rows("SELECT * FROM runs WHERE id = ?", (run_id,), of=RunRow)
        self._run = {**self._run, "name": run["name"]}
        return Place(same_file.opened(db.path), run_id, attempt_id)

    # ---- whose the connection is ------------------------------------------------------------------------------------

    def _check(self, connection: sqlite3.Connection) -> None:
        self._check_file()
        if not self._holds(connection):
            raise NotThere("the registry no longer holds this run")

    def _holds(self, connection: sqlite3.Connection) -> bool:
        place, run = self._place, self._run
        key = (place.attempt_id, run["started_at"], run["pid"], place.run_id, run["fingerprint"])
        return bool(connection.execute(_GUARD, key).fetchall())

    def _check_file(self) -> None:
        size = self._place.file.size()
        if size < self._size and (size == 0 or self._database_size() >= self._size):
            raise NotThere("its file was removed, replaced or emptied")
        self._size = size

    def _database_size(self) -> int:
        """The bytes that SQLite takes the file to have: fewer than before where somebody has vacuumed it."""
        (pages,) = self._db.connection.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)

    def _set_patience(self, seconds: float) -> None:
        self._db.connection.execute(f"PRAGMA busy_timeout={round(seconds * 1000):d}")


def _is_full(error: Exception) -> bool:
    """Whether a disk that takes no more is the reason, as SQLite tells it: a write that failed may be one too."""
    code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _words(error: Exception) -> str:
    if isinstance(error, MlxopsError):
        return error.message
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
