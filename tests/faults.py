"""What can befall a command and is counted: each fault leaves a mark beside the project when it strikes.

They are functions that a command's process calls first, as those of `training_runs` are.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import training_runs


def has_struck(project: Path) -> bool:
    """Whether the fault of the last command struck; its mark is taken away."""
    mark = _mark(project)
    struck = mark.exists()
    mark.unlink(missing_ok=True)
    return struck


def kill_in_the_writer(project: Path, instant: int) -> None:
    """Have this process be killed at the nth instant of writing a checkpoint."""
    kill = os.kill

    def marked(pid: int, number: int) -> None:
        _mark(project).touch()
        kill(pid, number)

    os.kill = marked
    training_runs.die_in_the_writer(instant)


def fail_to_read_or_write(place: str, project: Path, call: int) -> None:
    """Have the nth call of a function of the system fail as a bad disk does."""

    def fail() -> None:
        _mark(project).touch()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    training_runs.act_before(place, fail, call=call)


def fill_the_disk(project: Path, size: int) -> None:
    """Have no file grow beyond a size."""
    _mark(project).touch()
    training_runs.limit_files(size)


def set_the_clock(seconds: int, place: str, project: Path, call: int) -> None:
    """Have the clock of this process, and of every database that it opens, be set before the nth call of a function."""
    ahead = [0]

    def strike() -> None:
        _mark(project).touch()
        ahead[0] = seconds

    training_runs.act_before(place, strike, call=call)
    now, connect = time.time, sqlite3.connect
    time.time = lambda: now() + ahead[0]

    def strftime(form: str, *words: Any) -> Any:
        if words[:1] == ("now",):
            words = ("now", f"{ahead[0]} seconds", *words[1:])
        with closing(connect(":memory:")) as plain:
            return plain.execute(f"SELECT strftime(?{', ?' * len(words)})", (form, *words)).fetchone()[0]

    def connected(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.create_function("strftime", -1, strftime)
        return connection

    sqlite3.connect = connected


def killed_in_step(number: int) -> Callable[[], None]:
    """A fault that kills a training in a step."""
    return partial(training_runs.signal_itself, signal.SIGKILL, training_runs.STEP, number)


def _mark(project: Path) -> Path:
    return project.with_name(f"{project.name}.struck")
