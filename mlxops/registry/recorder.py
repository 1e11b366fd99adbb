"""Writing what training says into the registry."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlxops import registry
from mlxops.events import Event, Notice, Saved, Started, Stopped
from mlxops.registry.away import Writer
from mlxops.registry.entries import Entry, entries_of


def diverged_before(db: registry.Registry, run_id: int) -> list[Notice]:
    """What to say where a run's last attempt diverged: resuming is right only if something outside it was to blame."""
    attempts = registry.attempts_of(db, run_id)
    if not attempts or attempts[-1]["end_reason"] != "diverged":
        return []
    message = (
        f"it diverged when it last came this way, and the same settings lead there again: {attempts[-1]['error']}; "
        "`--branch` or `--new` with a smaller `--learning-rate` or other rows leads elsewhere"
    )
    return [Notice(kind="diverged before", message=message, level="warning")]


class Recorder:
    """A listener that has written an event when it returns, or has it wait where the registry is away.

    `saved_at` is the iteration of the newest checkpoint; `now` gives seconds since 1970.
    """

    def __init__(self, writer: Writer, saved_at: int, now: Callable[[], float] | None = None) -> None:
        self.writer = writer
        self.saved_at = saved_at
        self._now = now or time.time

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.writer.begin()
            case Saved():
                self.saved_at = event.iteration
            case Stopped(reason="diverged"):
                self.saved_at = event.iteration
        entries = entries_of(event, self._now())
        for entry in entries:
            self.writer(entry)
        if not entries:
            self.writer.look()

    def end(self, *, reason: str, status: str, iteration: int, error: str | None) -> str | None:
        """Record how the attempt ended; None where all is written, else what keeps the registry from being written."""
        values = {"reason": reason, "status": status, "iteration": iteration, "error": error}
        self.writer(Entry("end", self._now(), values))
        return self.writer.finish(self.saved_at)
