"""Ending in order: signals as exceptions, so that what was made is removed and what was started is ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlxops.errors import Interrupted


@contextmanager
def ending_by_exceptions(
    said: str, numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGHUP)
) -> Iterator[None]:
    """Have these signals end the block by `Interrupted`, so that what it made is removed; ignored ones stay ignored.

    A second one does not disturb that. Only the main thread can do this.
    """

    def end(number: int, frame: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number, said)

    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
