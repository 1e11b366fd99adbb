"""Every error a person can act on, and the exit code that each one carries.

- `MlxopsError`
    - `Failed` (1): the work failed
        - `Diverged`: the loss or its gradient stopped being finite
    - `BadRequest` (2): the request was wrong
        - `NotFound`: a file, folder, run or model that is not there
        - `InvalidData`: rows that cannot be used, each named by file and line
    - `Refused` (3): refused, to protect something
        - `Busy`: another process works on it
        - `SettingsDiffer`: a run of other settings is there
    - `Interrupted` (128 + signal): ended by a signal after saving

Nothing else is caught on the way to the house `@task`: any other exception is a bug.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence


class MlxopsError(Exception):
    """An error a person can act on: one sentence without a full stop, and the command that helps."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Failed(MlxopsError):
    """The work failed."""


class Diverged(Failed):
    """The loss or its gradient was not finite for several updates in a row."""


class BadRequest(MlxopsError):
    """The request was wrong: a bad option, a missing file, invalid data."""

    exit_code = 2


class NotFound(BadRequest):
    """What was asked for is not there."""


class InvalidData(BadRequest):
    """Rows that cannot be used; `problems` holds one `file:line: reason` for each, all of them."""

    shown = 20

    def __init__(self, message: str, problems: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class Refused(MlxopsError):
    """Refused, to protect something."""

    exit_code = 3


class Busy(Refused):
    """Another process works on it."""


class SettingsDiffer(Refused):
    """A run of other settings is there; `differences` holds (setting, there, asked for)."""

    def __init__(
        self, message: str, differences: Sequence[tuple[str, object, object]] = (), *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)


class Interrupted(MlxopsError):
    """Ended by a signal after saving; the exit code is 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.signal_name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
