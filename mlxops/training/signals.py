"""Stopping on request: the first signal asks for a checkpoint, the second leaves at once.

A handler in Python runs only between two bytecodes, and one training step can be seconds of native code, so the
signals are read from the wakeup descriptor by a thread.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

_ONE_REQUEST = 0.2
"""Seconds within which signals are one request: timeout(1) and some shells send theirs to process and group both."""


class StopRequest:
    """Whether training was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def listen(
    on_first: Callable[[int], None] | None = None, before_leaving: Callable[[], None] | None = None
) -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP into a `StopRequest`; a later one ends the process with 128 + its number.

    A signal that is ignored (SIGHUP under nohup) stays ignored. Only the main thread can listen.
    """
    request = StopRequest()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        first = 0.0
        while received := ours.recv(1):
            number = received[0]
            if number not in handled:
                continue
            if request:
                if time.monotonic() - first < _ONE_REQUEST:
                    continue
                if before_leaving is not None:
                    before_leaving()
                os._exit(128 + number)
            request.signal_number, first = number, time.monotonic()
            if on_first is not None:
                on_first(number)

    previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    handled = {
        number: signal.signal(number, _nothing)
        for number in (getattr(signal, name) for name in _NAMES)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handled.items():
            signal.signal(number, handler)
        theirs.close()
        thread.join()
        ours.close()


def _nothing(number: int, frame: object) -> None:
    """A handler has to be there for the number to reach the wakeup descriptor."""
