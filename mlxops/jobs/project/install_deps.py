"""A project's own environment: made in its `.venv`, written down in requirements.lock and in the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, registry, resources, system
from mlxops.config import InstallDepsConfig
from mlxops.errors import BadRequest, Failed
from mlxops.projects import environment, packages
from mlxops.projects.environment_plan import Wanted
from mlxops.projects.invocation import Invocation

_LOCK = "requirements.lock"


@dataclass(frozen=True, kw_only=True)
class InstalledEnvironment:
    """An environment that is complete: whether anything was done, its backend, and how many packages it has."""

    folder: str
    python: str
    backend: str
    packages: int
    was_up_to_date: bool


def source_of(root: Path) -> Path | None:
    """What a project's mlxops is installed from: the clone or the wheel of the program at work, or the one before."""
    if (clone := resources.checkout()) is not None:
        return clone
    stamp = environment.stamp_of(root / ".venv")
    before = Path(stamp["project"]) if "project" in stamp else None
    # install.sh keeps a wheel beside the environment that it makes
    for place in (Path(sys.prefix).parent / "wheels", before):
        folder = place.parent if place and place.suffix == ".whl" else place
        if folder and (wheels := sorted(folder.glob("mlxops-*.whl"), key=lambda wheel: wheel.stat().st_mtime)):
            return wheels[-1]
        if folder and (folder / "pyproject.toml").is_file():
            return folder
    return None


def install_deps(
    invocation: Invocation, config: InstallDepsConfig, source: Path | None, say: Callable[[str], None]
) -> InstalledEnvironment:
    """Have the project's `.venv` complete; interrupted, the next call completes it.

    `source` is the clone or the wheel that mlxops comes from. Raises `BadRequest` for a Python that is not there and
    a backend that this machine cannot have, `Refused` for an environment of somebody else's that does not serve,
    `Failed` where the installer or the disk says no.
    """
    root = invocation.project.root
    if source is None:
        raise Failed(
            "this mlxops knows neither a clone of its repository nor a wheel to install from",
            hint="`./install.sh` in a clone of mlxops keeps a wheel for this; then `mlx-toolkit install-deps`",
        )
    if files.is_same(root, source):
        raise BadRequest(f"{str(root)!r} is the clone of mlxops itself", hint="`./install.sh test` sets that up")
    wanted = Wanted(
        folder=root / ".venv",
        source=source,
        extras=frozenset({"dev"}) if config.dev else frozenset(),
        backend=backend_for(config.backend, environment.stamp_of(root / ".venv").get("backend")),
        python=None if config.python is None else python_of(config.python),
        upgrade=config.upgrade,
    )
    if wanted.python is not None:
        environment.check(wanted.python)
    if wanted.folder.is_symlink():
        say(".venv was a link to the environment at work; this project gets its own")
        wanted.folder.unlink()
    was_ready = environment.is_ready(wanted)
    environment.make(wanted, log=say)
    lock, python = environment.lock_of(wanted.folder), environment.version_of(wanted.folder)
    names = {line.partition("==")[0] for line in lock.splitlines()}
    backend = next((backend for package, backend in packages.BACKENDS.items() if package in names), "none")
    if not was_ready or not (root / _LOCK).exists():
        # what is used from a clone is on no index
        lines = [f"# {line}" if line.startswith("mlxops==") else line for line in lock.splitlines()]
        files.write_text(root / _LOCK, "\n".join(lines) + "\n")
        with registry.open_registry(invocation.project.registry_path) as db:
            registry.record_environment(db, backend=backend, lock=lock, python=python)
    return InstalledEnvironment(
        folder=str(wanted.folder), python=python, backend=backend, packages=len(names), was_up_to_date=was_ready
    )


def backend_for(asked: str, before: str | None) -> str:
    """The backend to install: the one asked for, or for auto the one of `before`, else what suits this machine.

    Raises `BadRequest` for one that MLX does not have on this system.
    """
    of_mac = system.ON_MACOS
    if asked == "auto":
        return before or ("metal" if of_mac else _of_driver())
    if (asked == "metal") != of_mac:
        where, fits = ("a Mac", "metal") if of_mac else ("Linux", "cpu, cuda12 and cuda13")
        raise BadRequest(f"MLX has no backend {asked} on {where}", hint=f"`--backend auto`, or {fits}")
    return asked


def _of_driver() -> str:
    """The newest CUDA that the NVIDIA driver here can run, else cpu."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return "cpu"
    major = said.partition(".")[0].strip()
    return next((name for name, least in packages.DRIVERS.items() if major.isdecimal() and int(major) >= least), "cpu")


def python_of(named: str) -> Path:
    """The program that a person names as a Python; raises `BadRequest` where there is none."""
    found = shutil.which(files.expanded(named))
    if found is None:
        raise BadRequest(f"there is no Python {named!r}", hint="`--python python3.13`, or the path of one")
    return Path(os.path.abspath(found))  # noqa: PTH100  a link is a name by which a Python knows its environment
