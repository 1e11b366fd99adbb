"""The facts that `diagnosis` judges, gathered in one place: nothing here decides, and nothing is changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxops import files, system
from mlxops.projects import accelerator, environment, interpreter, machine, packages
from mlxops.projects.diagnosis import PROGRAMS
from mlxops.projects.facts import (
    ComputeFacts,
    EnvironmentFacts,
    Facts,
    HubFacts,
    MachineFacts,
    PathFacts,
    PermissionFacts,
    PlaceFacts,
    SystemFacts,
)
from mlxops.projects.invocation import Invocation
from mlxops.projects.packages import Installed
from mlxops.system import cgroup

HUB = "https://huggingface.co"
_PATIENCE = 120.0  # seconds until MLX counts as hanging
_HUB_PATIENCE = 3.0
_SHOWN = 300  # characters of an error
_MIB = 1 << 20

# In the environment's own Python, as a training does it: the BLAS first, then MLX.
_COMPUTE = """
import json, sys, time
found = {"blas": None, "blas_note": None}
try:
    from pathlib import Path
    from mlxops.projects import blas
    loaded = blas.load(threads=None, core_type=None, cache=Path(sys.argv[1]) if sys.argv[1] else None,
                       setting=sys.argv[2])
    found["blas"], found["blas_note"] = loaded.name, loaded.note
except ImportError:
    pass
import mlx.core as mx
size = 512
one = mx.arange(size * size, dtype=mx.float32).reshape(size, size) % 7
two = mx.arange(size * size, dtype=mx.float32).reshape(size, size) % 5
mx.eval(one, two)
best, until = float("inf"), time.perf_counter() + 0.3
while best == float("inf") or time.perf_counter() < until:
    begun = time.perf_counter()
    product = one @ two
    mx.eval(product)
    best = min(best, time.perf_counter() - begun)
# whole numbers, so that every order of summing has the same result
expected = [sum((row * size + k) % 7 * ((k * size + column) % 5) for k in range(size))
            for row, column in ((0, 0), (3, 200), (511, 511))]
found["is_right"] = [product[0, 0].item(), product[3, 200].item(), product[511, 511].item()] == expected
found["flops"] = 2 * size**3 / best
found["device"] = "gpu" if mx.default_device() == mx.gpu else "cpu"
print(json.dumps(found))
"""


def examine(invocation: Invocation, heard: Callable[[int, int], object]) -> Facts:
    """All facts; takes a few seconds, in which MLX computes in a process of its own. `heard` gets the steps done."""
    root = invocation.project.root
    cache = invocation.cache or machine.user_cache()
    before, begun = _swapped_out(), time.monotonic()
    heard(0, 4)
    installed = packages.installed(root, invocation.blas)
    compute = compute_facts(_python_of(installed), root, cache, invocation.blas, has_mlx="mlx" in installed.versions)
    heard(1, 4)
    found = environment_facts(root, installed)
    heard(2, 4)
    hub = hub_facts(os.environ)
    heard(3, 4)
    swapped = (_swapped_out() - before) / max(time.monotonic() - begun, 0.1)
    disks = {"the project": root, **({"the cache": cache} if cache else {})}
    facts = Facts(
        system=system_facts(),
        path=path_facts(os.environ),
        environment=found,
        accelerators=accelerator.find(),
        compute=compute,
        machine=machine_facts(disks, swapped),
        place=place_here(invocation.project.registry_path.parent),
        hub=hub,
        permissions=permission_facts(invocation, cache),
    )
    heard(4, 4)
    return facts


def system_facts() -> SystemFacts:
    """The Python at work and its machine."""
    return SystemFacts(
        python=interpreter.this(),
        has_apple_silicon=system.sysctl("hw.optional.arm64") == "1",
        is_translated=system.sysctl("sysctl.proc_translated") == "1",
    )


def path_facts(environ: Mapping[str, str]) -> PathFacts:
    """What a shell with these variables finds."""
    folders = tuple(each.rstrip("/") or "/" for each in environ.get("PATH", "").split(os.pathsep) if each)
    home = Path(environ.get("HOME") or "/") / ".local" / "bin"
    found = {}
    for name in PROGRAMS:
        files = [Path(folder, name) for folder in dict.fromkeys(folders)]
        found[name] = tuple(
            (str(each), _is_ours(each)) for each in files if os.access(each, os.X_OK) and each.is_file()
        )
    return PathFacts(
        folders=folders,
        found=found,
        own_folder=str(Path(sys.prefix) / "bin"),
        home_folder=str(home),
        home_programs=tuple(name for name in PROGRAMS if (home / name).exists()),
        shell=Path(environ.get("SHELL") or "").name,
    )


def _is_ours(program: Path) -> bool:
    """Whether a program of that name is no other's: `inv` is Invoke's, and the older toolkit is called as ours."""
    try:
        with program.open("rb") as file:
            text = file.read(8192)
    except OSError:
        return True
    return b"mlxops" in text or (program.name == "inv" and b"invoke" in text)


def environment_facts(root: Path, installed: Installed) -> EnvironmentFacts:
    """What is in the environment, and what its own files and pip say of that."""
    folder, link = Path(installed.folder), root / ".venv"
    if link.is_symlink() and not link.exists():
        return EnvironmentFacts(folder=str(link), is_own=True, python=None, versions={}, is_dangling=True)
    python = _python_of(installed)
    stamp = environment.stamp_of(folder.resolve())
    found = replace(
        installed_facts(installed),
        python=installed.python if _runs(python) else None,
        state=stamp.get("state"),
        made_in=_moved_from(stamp, folder),
        hidden=tuple(each.name for each in environment.hidden_files(folder)),
    )
    # one that is shared with other programs, or that was made without MLX, is not as pip would have it
    is_for_mlx = installed.is_own or ((folder / "pyvenv.cfg").is_file() and "mlx" in installed.versions)
    if found.python is None or found.state not in (None, "complete") or not is_for_mlx:
        return found
    differences = _differences(root / "requirements.lock", folder) if installed.is_own else ()
    return replace(
        found,
        is_damaged=environment.is_damaged(folder),
        differences=differences,
        conflicts=_conflicts(python),
    )


def installed_facts(installed: Installed) -> EnvironmentFacts:
    """What the environment's own files say of it, without starting anything in it."""
    return EnvironmentFacts(
        folder=".venv" if installed.is_own else installed.folder,
        is_own=installed.is_own,
        python=installed.python,
        versions=installed.versions,
        backends=installed.backends,
    )


def _python_of(installed: Installed) -> Path:
    return environment.python_of(Path(installed.folder)) if installed.is_own else Path(sys.executable)


def _runs(python: Path) -> bool:
    return system.output([str(python), "-I", "-c", "print(1)"], timeout=_PATIENCE) == "1"


def _moved_from(stamp: Mapping[str, Any], folder: Path) -> str | None:
    made_in = stamp.get("folder")
    return made_in if made_in is not None and not files.is_same(Path(made_in), folder) else None


def _differences(lock: Path, folder: Path) -> tuple[str, ...]:
    """The packages that are not as the lock has them; none without a lock."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", "\n".join(lines), re.MULTILINE))
    there = dict(line.split("==") for line in environment.lock_of(folder).splitlines())
    return tuple(
        f"{name} is {there[name]}, not {version}" if name in there else f"{name} {version} is missing"
        for name, version in wanted.items()
        if there.get(name) != version
    )


def _conflicts(python: Path) -> tuple[str, ...]:
    """What pip finds not to fit together; none where the environment has no pip."""
    done = subprocess.run(
        [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "check"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    is_told = done.returncode == 1 and "No module named pip" not in done.stderr
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if is_told else ()


def compute_facts(
    python: Path, folder: Path, cache: Path | None, setting: str | None, *, has_mlx: bool
) -> ComputeFacts:
    """What MLX computes in a process of its own, which may die of it."""
    if not has_mlx:
        return ComputeFacts(error="MLX is not installed")
    try:
        done = subprocess.run(
            [str(python), "-P", "-c", _COMPUTE, str(cache or ""), setting or ""],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except OSError as error:
        return ComputeFacts(error=f"{python} does not start: {error.strerror}")
    except subprocess.TimeoutExpired:
        return ComputeFacts(error=f"MLX did not compute within {_PATIENCE:.0f} s")
    if done.returncode < 0:
        return ComputeFacts(error=f"MLX dies of {signal.Signals(-done.returncode).name}")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return ComputeFacts(error=f"MLX does not compute: {last[:_SHOWN]}")
    return ComputeFacts(**json.loads(lines[-1]))


def machine_facts(folders: Mapping[str, Path], swapped_per_second: float) -> MachineFacts:
    """Memory, swap, the room on the disks of these folders, and the compiler."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    wired, pressure = (_whole(system.sysctl(name)) for name in _OF_MACOS)
    return MachineFacts(
        on_macos=system.ON_MACOS,
        memory=memory.total,
        memory_free=machine.free_memory(),
        memory_limit=_below(cgroup.memory_limit(), memory.total) if system.ON_LINUX else None,
        wired_limit=wired * _MIB if wired else None,
        pressure=pressure,
        swap=swap.total,
        swap_used=swap.used,
        swapped_per_second=swapped_per_second,
        disks={name: machine.free_disk(folder) for name, folder in folders.items()},
        compiler=shutil.which("clang++" if system.ON_MACOS else "g++"),
        has_developer_tools=system.has_developer_tools(),
    )


_OF_MACOS = ("iogpu.wired_limit_mb", "kern.memorystatus_vm_pressure_level")


def _below(limit: int | None, total: int) -> int | None:
    return limit if limit is not None and limit < total else None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _swapped_out() -> int:
    import psutil

    return int(psutil.swap_memory().sout)


def place_here(folder: Path) -> PlaceFacts:
    """The same with the home folder of whoever asks."""
    return place_facts(folder, Path(os.environ.get("HOME") or "/"))


def place_facts(folder: Path, home: Path) -> PlaceFacts:
    """On what file system a folder is or will be, and what syncs it."""
    import psutil

    there = _there(folder).resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    around = max(
        (each for each in mounts if there.is_relative_to(each)), key=lambda each: len(each.parts), default=None
    )
    kind = mounts[around] if around is not None else None
    return PlaceFacts(
        folder=str(folder),
        file_system=kind or None,
        is_remote=kind is not None and kind.lower().startswith(_REMOTE),
        synced_by=synced_by(there, home.resolve()),
    )


_REMOTE = ("nfs", "cifs", "smb", "afp", "webdav", "davfs", "fuse.sshfs", "fuse.rclone", "ceph", "fuse.glusterfs", "9p")


def synced_by(folder: Path, home: Path) -> str | None:
    """What copies a folder to other machines; macOS does so with Desktop and Documents where that is switched on."""
    library = home / "Library"
    clouds = library / "CloudStorage"
    if folder.is_relative_to(clouds) and folder != clouds:
        return folder.relative_to(clouds).parts[0].partition("-")[0]
    icloud = library / "Mobile Documents"
    shared = [home / name for name in ("Desktop", "Documents") if (icloud / "com~apple~CloudDocs" / name).exists()]
    if any(folder.is_relative_to(each) for each in (icloud, *shared)):
        return "iCloud"
    return "Dropbox" if folder.is_relative_to(home / "Dropbox") else None


def permission_facts(invocation: Invocation, cache: Path | None) -> PermissionFacts:
    """What cannot be written of what is there; a folder that is not there is made in the one above."""
    project = invocation.project
    needed: Sequence[Path] = (
        project.root,
        project.registry_path.parent,
        project.registry_path,
        project.adapters_folder,
        project.models_folder,
    )
    return PermissionFacts(
        needed=tuple(dict.fromkeys(str(each) for each in needed if each.exists() and not os.access(each, os.W_OK))),
        cache=str(cache) if cache is not None and not os.access(_there(cache), os.W_OK) else None,
    )


def _there(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def hub_facts(environ: Mapping[str, str]) -> HubFacts:
    """Whether the hub that these variables name answers within a few seconds, whatever it answers."""
    endpoint = (environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return HubFacts(endpoint=endpoint, is_offline=True)
    said: list[str | None] = []
    # a name server that does not answer keeps the socket's own limit waiting
    asking = threading.Thread(target=lambda: said.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(_HUB_PATIENCE + 1)
    return HubFacts(endpoint=endpoint, problem=said[0] if said else f"does not answer within {_HUB_PATIENCE:.0f} s")


def _ask(endpoint: str) -> str | None:
    import urllib.error
    import urllib.request

    try:
        with (
            suppress(urllib.error.HTTPError),
            urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=_HUB_PATIENCE),
        ):
            return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"cannot be reached: {getattr(reason, 'strerror', None) or reason}"
    return None
