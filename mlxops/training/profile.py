"""Where the time of a training goes, by part of the work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Profile:
    """Seconds, and how many times, of each part. What a part calls is counted there and not in the part.

    One that is not `on` measures nothing. Measuring waits for each update, which changes no bit of what it computes.
    """

    def __init__(self, *, on: bool = True) -> None:
        self.is_on = on
        self.parts: dict[str, tuple[float, int]] = {}
        self._inner = 0.0

    def part(self, name: str) -> AbstractContextManager[None]:
        """Measure a block as this part of the work."""
        return self._measured(name) if self.is_on else nullcontext()

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        outer, self._inner = self._inner, 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self._add(name, took - self._inner)
            self._inner = outer + took

    def count(self, name: str, seconds: float) -> None:
        """Count seconds of the block that is being measured as another part, once more."""
        if self.is_on:
            self._add(name, seconds)
            self._inner += seconds

    def _add(self, name: str, seconds: float) -> None:
        before, count = self.parts.get(name, (0.0, 0))
        self.parts[name] = (before + seconds, count + 1)
