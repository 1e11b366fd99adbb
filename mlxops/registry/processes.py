"""Facts about processes: which machine this is, which start of it, and whether a process can still be at work.

Never guessed from the clock: a process id alone is reused, and a start time in seconds moves when the clock is set.
"""

from __future__ import annotations

import os

from mlxops import system
from mlxops.system import processes
from mlxops.system.host import boot_id
from mlxops.system.host import name as this_host
from mlxops.system.processes import start_of as process_start

__all__ = ["boot_id", "is_proven_alive", "is_proven_dead", "is_this_machine", "process_start", "this_host"]


def is_this_machine(host: str, boot: str | None) -> bool:
    """Whether what has this name and this start is the machine at work here.

    A Mac may have been called otherwise when that was written, by its owner or by the network, while no other machine
    has its start. On Linux the containers of a machine share its start, and are told apart by their names.
    """
    return host == this_host() or (system.ON_MACOS and boot is not None and boot == boot_id())


def is_proven_dead(host: str, boot: str | None, pid: int, started: str | None) -> bool:
    """Whether that process cannot be at work any more. False where this machine cannot tell."""
    if not is_this_machine(host, boot):
        return False
    if boot is not None and boot_id() is not None and boot != boot_id():
        return True
    if started is not None and " " in started and started.split()[0] != processes.namespace():
        # a container of the same name: its process ids mean nothing here
        return False
    now = process_start(pid)
    if now is None:
        return not _is_hidden(pid)
    return started is not None and now != started


def is_proven_alive(host: str, boot: str | None, pid: int, started: str | None) -> bool:
    """Whether the process of that id is that very one: of this machine, this start of it, and as old as recorded."""
    return is_this_machine(host, boot) and boot == boot_id() and started is not None and process_start(pid) == started


def _is_hidden(pid: int) -> bool:
    """Whether the process is there after all, another user's that the system tells nothing about."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        pass
    return False
