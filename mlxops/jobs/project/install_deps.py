"""A project's own environment: made in its `.venv`, written down in requirements.lock and in the registry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, registry
from mlxops.config import InstallDepsConfig
from mlxops.errors import BadRequest, Failed
from mlxops.projects import environment
from mlxops.projects.invocation import Invocation

_LOCK = "requirements.lock"
# The package that carries MLX's code, and what computes there.
_BACKENDS = {"mlx-cuda-13": "cuda13", "mlx-cuda-12": "cuda12", "mlx-metal": "metal", "mlx-cpu": "cpu"}


@dataclass(frozen=True, kw_only=True)
class InstalledEnvironment:
    """An environment that is complete: whether anything was done, its backend, and how many packages it has."""

    folder: str
    python: str
    backend: str
    packages: int
    was_up_to_date: bool


def install_deps(
    invocation: Invocation, config: InstallDepsConfig, source: Path | None, say: Callable[[str], None]
) -> InstalledEnvironment:
    """Have the project's `.venv` complete; interrupted, the next call completes it.

    `source` is the clone that mlxops comes from. Raises `BadRequest` for a Python that is not there, `Refused` for an
    environment of somebody else's that does not serve, `Failed` where pip or the disk says no.
    """
    root = invocation.project.root
    if source is None:
        raise Failed(
            "this mlxops was not started from a clone of its repository, so it has no source to install from",
            hint="in a clone: `./install.sh quickstart`, then `.venv/bin/mlx-toolkit install-deps` in the project",
        )
    if files.is_same(root, source):
        raise BadRequest(f"{str(root)!r} is the clone of mlxops itself", hint="`./install.sh test` sets that up")
    wanted = environment.Wanted(
        folder=root / ".venv",
        project=source,
        extras=frozenset({"dev"}) if config.dev else frozenset(),
        python=_python(config.python),
        upgrade=config.upgrade,
    )
    if wanted.folder.is_symlink():
        say(".venv was a link to the environment at work; this project gets its own")
        wanted.folder.unlink()
    was_ready = environment.is_ready(wanted)
    environment.make(wanted, log=say)
    lock, python = environment.lock_of(wanted.folder), environment.version_of(wanted.folder)
    names = {line.partition("==")[0] for line in lock.splitlines()}
    backend = next((backend for package, backend in _BACKENDS.items() if package in names), "none")
    if not was_ready or not (root / _LOCK).exists():
        # what is used from a clone is on no index
        lines = [f"# {line}" if line.startswith("mlxops==") else line for line in lock.splitlines()]
        files.write_text(root / _LOCK, "\n".join(lines) + "\n")
        with registry.open_registry(invocation.project.registry_path) as db:
            registry.record_environment(db, backend=backend, lock=lock, python=python)
    return InstalledEnvironment(
        folder=str(wanted.folder), python=python, backend=backend, packages=len(names), was_up_to_date=was_ready
    )


def _python(named: str | None) -> Path | None:
    if named is None:
        return None
    found = shutil.which(files.expanded(named))
    if found is None:
        raise BadRequest(f"there is no Python {named!r}", hint="`--python python3.13`, or the path of one")
    return Path(os.path.abspath(found))  # noqa: PTH100  a link is a name by which a Python knows its environment
