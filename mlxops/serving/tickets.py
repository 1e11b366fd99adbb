"""The requests that wait for the model, which answers one after the other, and what it has for each of them."""

from __future__ import annotations

import queue
import threading
from collections import deque

from mlxops.serving.requests import Request
from mlxops.serving.shapes import ApiError, Delta, Finished, Started

Event = Started | Delta | Finished | ApiError


class Ticket:
    """One request on its way: the model puts events in, whoever asked takes them out."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Have the answer end, or not begin."""
        self._cancelled.set()

    def put(self, event: Event) -> None:
        """Give whoever asked the next event."""
        self._events.put(event)

    def get(self, timeout: float) -> Event | None:
        """The next event, None where there was none for so many seconds."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None


class Tickets:
    """A queue of so many requests at most, which can be closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Ticket] = deque()
        self._current: Ticket | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self.seconds_each = 1.0
        """How long an answer took of late; what a client is told to wait."""

    def add(self, request: Request) -> Ticket:
        """A place in the queue. Raises `ApiError` where it is full or closed."""
        with self._changed:
            if self._is_closed:
                raise _closing()
            self._waiting = deque(each for each in self._waiting if not each.is_cancelled)
            if len(self._waiting) >= self._most:
                wait = max(1, round(self.seconds_each))
                raise ApiError(
                    429,
                    f"{self._most} requests are waiting already: try again in {wait} s",
                    code="queue_full",
                    retry_after=wait,
                )
            ticket = Ticket(request)
            self._waiting.append(ticket)
            self._changed.notify()
            return ticket

    def next(self) -> Ticket | None:
        """Wait for the next request; None once the queue is closed."""
        with self._changed:
            while not self._is_closed:
                while self._waiting:
                    self._current = self._waiting.popleft()
                    if not self._current.is_cancelled:
                        return self._current
                self._current = None
                self._changed.wait()
            return None

    def close(self) -> None:
        """Take no more requests; those that wait and the one at work are told so."""
        with self._changed:
            self._is_closed = True
            for ticket in [*self._waiting, *([self._current] if self._current else [])]:
                ticket.cancel()
                ticket.put(_closing())
            self._waiting.clear()
            self._changed.notify_all()


def _closing() -> ApiError:
    return ApiError(503, "the server is stopping", code="stopping", retry_after=10)
