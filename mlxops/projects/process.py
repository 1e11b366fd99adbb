"""What the machine is doing while a run is watched: processors and memory, and how many watch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a process and its machine take: 100 % is one processor, memory is in bytes; None where it is not known."""

    process_cpu_percent: float | None
    process_memory: int | None
    cpu_percent: float | None
    processors: int | None
    memory_percent: float
    memory: int


class Sampler:
    """Looks at a process and at its machine; what is a rate needs two looks, so the first has None there."""

    def __init__(self) -> None:
        self._process: Any = None
        self._has_looked = False

    def sample(self, pid: int | None) -> Sample:
        """What the process takes (None where there is none to look at) and the machine; 100 % is one processor."""
        import psutil

        machine = psutil.virtual_memory()
        busy = psutil.cpu_percent()
        found = Sample(
            process_cpu_percent=None,
            process_memory=None,
            cpu_percent=busy if self._has_looked else None,
            processors=psutil.cpu_count(),
            memory_percent=machine.percent,
            memory=machine.total,
        )
        self._has_looked = True
        if pid is None:
            self._process = None
            return found
        try:
            is_new = self._process is None or self._process.pid != pid
            if is_new:
                self._process = psutil.Process(pid)
            with self._process.oneshot():
                percent, memory = self._process.cpu_percent(), self._process.memory_info().rss
            return replace(found, process_memory=memory, process_cpu_percent=None if is_new else percent)
        except psutil.Error:  # gone in the meantime, or another user's
            self._process = None
        return found
