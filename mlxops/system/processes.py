"""Other processes: what tells one from all others, sending it a signal, waiting for its end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlxops import system


def start_of(pid: int) -> str | None:
    """What tells this process from all others that had or will have its id; None where it is gone, a zombie or hidden.

    On Linux the process namespace and the ticks since boot, elsewhere the start time, as the kernel noted it: one that
    moves with the clock would make the process another one when that is set.
    """
    if system.ON_LINUX and Path("/proc/self/stat").exists():
        try:
            # the name before it may hold spaces and brackets; state is the 3rd field and the start the 22nd
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{namespace()} {fields[19]}"
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(_noted_start(process))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _noted_start(process: Any) -> float:
    """The start time that the kernel noted; what is public moves it with the clock since psutil 7.1."""
    return float(process._proc.create_time(monotonic=True))


def namespace() -> str | None:
    """The space in which process ids mean something, None where the system has one alone."""
    return str(Path("/proc/self/ns/pid").readlink()) if system.ON_LINUX else None


@contextmanager
def opened(pid: int) -> Iterator[int | None]:
    """A descriptor that means this process and never a later one of its id; None where the system has none."""
    descriptor = None
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def send(pid: int, descriptor: int | None, number: signal.Signals) -> None:
    """Send a signal to a process, through its descriptor where there is one."""
    if descriptor is None:
        os.kill(pid, number)
    else:
        signal.pidfd_send_signal(descriptor, number)


def wait_for_end(descriptor: int | None) -> None:
    """Return when the process of the descriptor has ended; at once where the system has none."""
    if descriptor is not None:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll()


def libraries_in(folder: Path) -> set[str]:
    """The shared libraries in a folder that this process has loaded, by their names in it; Linux says it alone."""
    import re

    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    return set(re.findall(rf" {re.escape(str(folder))}/(.*\.so)$", mapped, re.MULTILINE))
