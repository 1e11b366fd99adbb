"""Questions that may take long, asked in a thread of their own: keys and signals are never kept waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

_PATIENCE = 0.3  # seconds until it is looked whether anybody wants to leave
_LEAVING = 0.2  # seconds that an answer may still take then

Answer = TypeVar("Answer")


class Asker:
    """One thread for all questions, since SQLite's connections belong to one."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # a daemon: one that still waits for a disk or a lock does not keep the process from ending
        self._thread = Thread(target=self._answer, name="asker", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[], Answer], meanwhile: Callable[[], None]) -> Answer:
        """The answer, or what the question raises; where it takes long, `meanwhile` is called, which may raise too."""
        future: Future[Answer] = Future()
        self._questions.put((question, future))
        while True:
            try:
                return future.result(_PATIENCE)
            except TimeoutError:
                if future.done():  # the question's own
                    raise
                meanwhile()

    def close(self, last: Callable[[], None]) -> None:
        """Ask a last time and end; what is still being answered is left to itself."""
        self._questions.put((last, Future()))
        self._questions.put(None)
        self._thread.join(_LEAVING)

    def _answer(self) -> None:
        while asked := self._questions.get():
            question, future = asked
            try:
                future.set_result(question())
            except BaseException as error:  # whoever asked gets it
                future.set_exception(error)
