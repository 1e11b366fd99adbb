"""The machine as a run sees it: its facts, the versions installed, memory, disk and cache.

Nothing here is needed to list the tasks; MLX is imported by `device` alone.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import mlxops
from mlxops import files, system
from mlxops.errors import BadRequest
from mlxops.system import cgroup, host

PACKAGES = (
    "mlx",
    "mlx-cpu",
    "mlx-metal",
    "mlx-cuda-12",
    "mlx-cuda-13",
    "mlx-lm",
    "numpy",
    "scipy-openblas32",
    "tokenizers",
    "transformers",
)
"""What a result can depend on, down to the packages that carry MLX's code for one kind of device."""

_FOR_A_GPU = ("mlx-metal", "mlx-cuda-13", "mlx-cuda-12")


def facts() -> dict[str, Any]:
    """What this machine is. `boot_id` tells one boot from the next, None where the system has none."""
    import psutil

    return {
        "host": host.name(),
        "boot_id": host.boot_id(),
        "os": host.kernel(),
        "machine": platform.machine(),
        "cpu": host.cpu_model(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "available_cores": host.available_cores(),
        "memory": psutil.virtual_memory().total,
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The version of each installed package that a result can depend on, read without importing it."""
    found = {package: version(package) for package in PACKAGES}
    return {"mlxops": mlxops.__version__, **{package: each for package, each in found.items() if each is not None}}


@cache
def version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed; read without importing it."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def wheel() -> str | None:
    """The package with MLX's code for a GPU, its version and what system it was built for; None without one.

    Wheels of one version for different systems hold different kernels.
    """
    for package in _FOR_A_GPU:
        with suppress(metadata.PackageNotFoundError):
            found = metadata.distribution(package)
            lines = (found.read_text("WHEEL") or "").splitlines()
            built = [line.rpartition("-")[2] for line in lines if line.startswith("Tag:")]
            return " ".join([package, found.version, *built])
    return None


def device() -> dict[str, Any]:
    """The device MLX computes on: `kind` (cpu or gpu), `name` and `architecture`."""
    import mlx.core as mx

    kind = "gpu" if mx.default_device() == mx.gpu else "cpu"
    about = mx.device_info()
    return {
        "kind": kind,
        "name": about.get("device_name") or host.cpu_model(),
        "architecture": about.get("architecture"),
    }


def free_memory() -> int:
    """The bytes of memory that this process can still take."""
    import psutil

    available = int(psutil.virtual_memory().available)
    left = cgroup.memory_left() if system.ON_LINUX else None
    return available if left is None else min(available, left)


def free_disk(path: Path) -> int:
    """The bytes free for this user where `path` is or will be."""
    there = next(each for each in [path.absolute(), *path.absolute().parents] if each.exists())
    return shutil.disk_usage(there).free


def process_memory(pid: int | None = None) -> int:
    """The bytes of memory that a process holds, this one unless another is named; 0 where there is none to look at."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def system_memory_percent() -> float:
    """The share of the machine's memory in use."""
    import psutil

    return float(psutil.virtual_memory().percent)


def cpu_percent() -> float:
    """The load of all processors since the call before; the first call of a process says 0."""
    import psutil

    return float(psutil.cpu_percent(interval=None))


def user_cache(environment: Mapping[str, str] | None = None) -> Path | None:
    """The folder for what can be made or fetched again; it may not exist, and may not take files.

    It is that of MLXOPS_CACHE, else the system's custom below the home folder; None where that is not known, as under a
    user id without an account. Raises `BadRequest` for a MLXOPS_CACHE in a home that nobody has.
    """
    environment = os.environ if environment is None else environment
    if named := environment.get("MLXOPS_CACHE"):
        return files.expanded(named).absolute()
    # The specification has a relative path ignored.
    base = Path(environment.get("XDG_CACHE_HOME") or "")
    if base.is_absolute() and not system.ON_MACOS:
        return base / "mlxops"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if not home.is_absolute():
        return None
    return home / ("Library/Caches" if system.ON_MACOS else ".cache") / "mlxops"


def needed_cache(given: Path | None) -> Path:
    """The folder that was given for it, else the user's; `BadRequest` where there is none."""
    cache = given or user_cache()
    if cache is None:
        raise BadRequest(
            "there is no place to keep downloads: the home folder is not known",
            hint="set HOME, or MLXOPS_CACHE to a folder of yours",
        )
    return cache


def git() -> str | None:
    """The program git; None without one, and where Apple's stub in its place would open a window."""
    program = shutil.which("git")
    return None if program == "/usr/bin/git" and not system.has_developer_tools() else program


def git_commit(folder: Path) -> str | None:
    """The commit checked out in a folder, with `-dirty` where files differ from it; None without git."""
    program = git()
    command = ["-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return system.output([program, *command]) if program is not None else None
