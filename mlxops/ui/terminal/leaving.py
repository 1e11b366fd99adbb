"""How a full screen is left: by signals, or because its terminal is gone."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NO_TERMINAL = (errno.EIO, errno.ENXIO)
"""What writing to a terminal says that was closed."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Signals:
    """Signals as exceptions that leave through the blocks that restore the terminal, with the signal's exit code.

    What runs at that moment may swallow an exception (a finalizer, a callback of a library): `check` raises it again.
    """

    def __init__(self) -> None:
        self._seen: int | None = None

    @contextmanager
    def handled(self) -> Iterator[Signals]:
        """Have signals end the block in order; what handled them before does so again after it."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {each: signal.signal(each, self._leave) for each in _ENDING}
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` or `SystemExit` where a signal has come."""
        if self._seen == signal.SIGINT:
            raise KeyboardInterrupt
        if self._seen is not None:
            raise SystemExit(128 + self._seen)

    def _leave(self, signal_number: int, frame: FrameType | None) -> None:
        self._seen = signal_number
        self.check()
