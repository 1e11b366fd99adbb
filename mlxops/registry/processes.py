"""Facts about processes: which machine this is, which start of it, and whether a process can still be at work.

Never guessed from the clock: a process id alone is reused, and a start time in seconds moves when the clock is set.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


def this_host() -> str:
    """The name of this machine or container."""
    return platform.node()


@cache
def boot_id() -> str | None:
    """What names this start of the machine, None where the system does not say."""
    linux = Path("/proc/sys/kernel/random/boot_id")
    if linux.exists():
        return linux.read_text().strip()
    if platform.system() == "Darwin":
        import subprocess

        found = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    return None


def process_start(pid: int) -> str | None:
    """What tells this process from all others that had or will have its id; None where it is gone, a zombie or hidden.

    On Linux the process namespace and the ticks since boot, elsewhere the start time.
    """
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # the name before it may hold spaces and brackets; state is the 3rd field and the start the 22nd
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{_namespace()} {fields[19]}"
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_proven_dead(host: str, boot: str | None, pid: int, started: str | None) -> bool:
    """Whether that process cannot be at work any more. False where this machine cannot tell."""
    if host != this_host():
        return False
    if boot is not None and boot_id() is not None and boot != boot_id():
        return True
    if started is not None and " " in started and started.split()[0] != _namespace():
        # a container of the same name: its process ids mean nothing here
        return False
    now = process_start(pid)
    if now is None:
        return not _is_hidden(pid)
    return started is not None and now != started


def is_proven_alive(host: str, boot: str | None, pid: int, started: str | None) -> bool:
    """Whether the process of that id is that very one: of this machine, this start of it, and as old as recorded."""
    return host == this_host() and boot == boot_id() and started is not None and process_start(pid) == started


def _is_hidden(pid: int) -> bool:
    """Whether the process is there after all, another user's that the system tells nothing about."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        pass
    return False


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())
