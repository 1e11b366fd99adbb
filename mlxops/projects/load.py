"""What the machine is doing now: processors, memory, swap and disk."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mlxops import system
from mlxops.projects import machine
from mlxops.system import cgroup

_FIRST = 0.2  # seconds that a first look takes: a load is a difference


@dataclass(frozen=True, kw_only=True)
class Load:
    """The machine at one moment; bytes, and percent of all processors. A container's limits count as its machine's.

    `load_average` are those of 1, 5 and 15 minutes; `disk_*` are of the disk that the folder is on.
    """

    cpu_percent: float
    load_average: tuple[float, float, float]
    memory: int
    memory_used: int
    swap: int
    swap_used: int
    disk: int
    disk_free: int


class LoadSampler:
    """Looks at the machine again and again; the first look ends a fifth of a second after this began, or later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.monotonic()
        self._times = _processor_times()
        self._busy: float | None = None

    def sample(self) -> Load:
        """The machine now; the processors since the look before."""
        import psutil

        if self._busy is None:
            time.sleep(max(0.0, self._began + _FIRST - time.monotonic()))
        before, self._times = self._times, _processor_times()
        total, idle = (now - then for now, then in zip(self._times, before, strict=True))
        self._busy = busy = 100 * min(1.0, max(0.0, 1 - idle / total)) if total > 0 else self._busy or 0.0
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        limit = cgroup.memory_limit() if system.ON_LINUX else None
        total = memory.total if limit is None else min(memory.total, limit)
        disk = shutil.disk_usage(next(each for each in (self._folder, *self._folder.parents) if each.exists()))
        return Load(
            cpu_percent=busy,
            load_average=os.getloadavg(),
            memory=total,
            memory_used=max(0, total - machine.free_memory()),
            swap=swap.total,
            swap_used=swap.used,
            disk=disk.total,
            disk_free=disk.free,
        )


def _processor_times() -> tuple[float, float]:
    """The seconds of all processors so far, and those in which they had no work."""
    import psutil

    times = psutil.cpu_times()
    # Linux counts the time of guests a second time among that of users
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return sum(times) - twice, times.idle + getattr(times, "iowait", 0.0)
