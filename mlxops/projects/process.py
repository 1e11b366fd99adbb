"""What processes do: the processors and memory that a run and its machine take, and which of them train."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_TRAIN = {"lora", "train.lora", "finetune", "train.finetune", "resume", "train.resume", "quickstart"}


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


def trainings(is_asked_for: Callable[[Path], bool]) -> list[tuple[int, Path]]:
    """The processes of this user that train in an environment that is asked for, with the folder of each."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            program, *words = process.cmdline() or [""]
            folder = Path(process.cwd())
        except (psutil.Error, OSError):  # gone meanwhile, or hidden
            continue
        environment = Path(program).parent.parent
        is_ours = any(Path(word).name in ("mlxops", "mlx-toolkit", "inv", "invoke", "__main__.py") for word in words)
        if is_ours and _TRAIN & set(words) and Path(program).is_absolute() and is_asked_for(environment):
            found.append((process.pid, folder))
    return found
