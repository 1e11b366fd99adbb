"""The machine: its name, the present boot, its processor, and whether it may sleep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mlxops import system


def name() -> str:
    """The name of this machine or container.

    Of a Mac it is the one that it announces, which a person sets: what it is called otherwise is given by the network.
    """
    own = _announced_name() if system.ON_MACOS else None
    return f"{own}.local" if own else os.uname().nodename


@cache
def _announced_name() -> str | None:
    return system.output([system.SCUTIL, "--get", "LocalHostName"])


@cache
def boot_id() -> str | None:
    """What names this start of the machine, None where the system does not say."""
    if system.ON_LINUX:
        return _first_line(Path("/proc/sys/kernel/random/boot_id"))
    return system.sysctl("kern.bootsessionuuid")


@cache
def build() -> str | None:
    """The build of macOS, which brings the code of Metal and Accelerate; None on another system."""
    return system.sysctl("kern.osversion")


def kernel() -> str:
    """The system and the release of its kernel."""
    about = os.uname()
    return f"{about.sysname} {about.release}"


def macos_version() -> str:
    """The version of macOS, an empty text on another system."""
    import platform

    return platform.mac_ver()[0]


def description() -> str:
    """The system and its release, as people write it: of a Mac the version of macOS."""
    release = macos_version()
    return f"macOS {release}" if release else kernel()


def cpu_model() -> str:
    """The name of the processor; of a Mac, that of its chip."""
    import platform

    if system.ON_MACOS:
        return system.sysctl("machdep.cpu.brand_string") or platform.machine()
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def cpu_info() -> dict[str, str]:
    """What Linux says of its first processor; empty elsewhere."""
    if not system.ON_LINUX:
        return {}
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def available_cores() -> int:
    """The physical cores this process may use: all, or what affinity and container leave of them."""
    import psutil

    from mlxops.system import cgroup

    if not system.ON_LINUX:
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    cores = {_core_of(processor) for processor in os.sched_getaffinity(0)}
    limit = cgroup.cpu_limit()
    return max(1, len(cores) if limit is None else min(len(cores), int(limit)))


@contextmanager
def keep_awake(pid: int) -> Iterator[None]:
    """Keep a Mac from sleeping inside the block, or until the process is gone. Elsewhere nothing."""
    if not system.ON_MACOS:
        yield
        return
    import subprocess

    try:
        running = subprocess.Popen([system.CAFFEINATE, "-i", "-w", str(pid)], stdin=subprocess.DEVNULL)
    except OSError:  # a training is not lost for it
        yield
        return
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def _core_of(processor: int) -> str:
    """The name of the core that a logical processor is a thread of."""
    topology = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
    return _first_line(topology / "thread_siblings_list") or str(processor)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
