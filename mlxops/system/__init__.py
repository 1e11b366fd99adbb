"""What depends on the operating system: the one place that knows which it is, and all other modules ask here.

Here are the system's name, its own programs and how they are asked; in the modules what differs: `host`, `processes`,
`disk`, `locks`, `terminal`, `cgroup`. Standard library only, as an installation comes before all packages.
"""

from __future__ import annotations

import sys

NAME = sys.platform
ON_MACOS = NAME == "darwin"
ON_LINUX = NAME == "linux"

# by path: cron and launchd start programs with a PATH in which they are not
SYSCTL = "/usr/sbin/sysctl"
CAFFEINATE = "/usr/bin/caffeinate"
XCODE_SELECT = "/usr/bin/xcode-select"
IOREG = "/usr/sbin/ioreg"
SCUTIL = "/usr/sbin/scutil"

NVIDIA_DRIVER = "/proc/driver/nvidia/gpus"
"""Where the kernel driver of NVIDIA lists its GPUs, on Linux."""


def output(command: list[str], *, timeout: float | None = None) -> str | None:
    """What a program says; None where it is missing, fails, says nothing or takes longer than so many seconds."""
    import subprocess  # not for those who only list the tasks

    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode("utf-8", "replace").strip()
    return text if done.returncode == 0 and text else None


def sysctl(name: str) -> str | None:
    """What macOS says of itself under a name; None for a name that it does not have, and on another system."""
    return output([SYSCTL, "-n", name]) if ON_MACOS else None


def has_developer_tools() -> bool:
    """Whether Apple's programs for developers are there: in place of git and others there are stubs without them.

    Such a stub opens a window that offers to install them. True on other systems, where nothing stands for git.
    """
    return not ON_MACOS or output([XCODE_SELECT, "-p"]) is not None
