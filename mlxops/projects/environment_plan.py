"""What is done about a virtual environment: decided from what is there and what is wanted, without touching either.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlxops.projects import pip

NAME = "mlxops"

# What a new environment brings along: no reason to keep a broken one.
_BROUGHT_ALONG = {"pip", "setuptools", "wheel"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An environment to be had in `folder`, with mlxops from `source`: a clone, used where it is, or a wheel.

    `light` are the requirements that it has instead of those of mlxops. `backend` is that of MLX, where it is asked
    for: auto, metal, cpu, cuda12, cuda13. `python` None: the Python of the one there is kept while it serves, and a new
    environment is of the Python at work. `upgrade` asks the index for newer versions, also where nothing is missing.
    """

    folder: Path
    source: Path
    extras: frozenset[str] = frozenset()
    light: tuple[str, ...] = ()
    backend: str | None = None
    python: Path | None = None
    upgrade: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in a folder: its stamp, what its Python says of itself (None: it does not run), its packages.

    `chosen` is what the Python that was asked for says, None where none was. `has_more` is true of a folder that holds
    something, but is no virtual environment.
    """

    stamp: dict[str, Any]
    python: dict[str, Any] | None
    chosen: dict[str, Any] | None
    packages: frozenset[str]
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about a folder, and why: nothing, install into it, make it again, or leave it to its owner."""

    action: Literal["nothing", "fill", "remake", "refuse"]
    reason: str = ""


def decide(found: Found, wanted: Wanted, definition: str) -> Decision:
    """What to do about what was found."""
    misfit = _misfit(found, wanted)
    if not found.stamp:
        others = found.packages - _BROUGHT_ALONG - {NAME}
        if misfit and (found.has_more or others):
            return Decision(action="refuse", reason=misfit)
        # Whose it is, nobody says; while it holds nothing of value, a broken one is no loss.
        return Decision(action="remake" if misfit else "fill", reason=misfit or "")
    if misfit is not None:
        return Decision(action="remake" if found.stamp["is_ours"] else "refuse", reason=misfit)
    if found.stamp["state"] == "filling" and found.stamp["is_ours"]:
        # a package may be half there, which the installer would take for whole
        return Decision(action="remake", reason="an installation was cut off")
    is_complete = (
        not wanted.upgrade
        and found.stamp["state"] == "complete"
        and (found.stamp["definition"], found.stamp["project"]) == (definition, str(wanted.source))
        and wanted.extras <= set(found.stamp["extras"])
        and set(found.stamp["packages"]) <= found.packages
    )
    return Decision(action="nothing" if is_complete else "fill")


def _misfit(found: Found, wanted: Wanted) -> str | None:
    """Why what is there cannot be installed into, as it is."""
    stamp, python = found.stamp, found.python
    if stamp.get("state") == "making":
        return "making it was cut off"
    if python is None:
        return "its Python does not run"
    if python["is_old"]:
        return f"its Python is {python['version']}"
    if not python["has_pip"] and stamp.get("is_ours") and pip.uv() is None:
        return "it has no pip"
    if found.chosen and any(found.chosen[key] != python[key] for key in ("prefix", "minor")):
        return f"its Python is {_in_words(python)}, and {_in_words(found.chosen)} was asked for"
    if not stamp:
        return None
    if stamp["folder"] != str(wanted.folder):
        return f"it was made in {stamp['folder']}"
    if wanted.backend and stamp.get("backend", wanted.backend) != wanted.backend:
        return f"its MLX is that for {stamp['backend']}, and {wanted.backend} was asked for"
    if (stamp["minor"], stamp["platform"]) != (python["minor"], python["platform"]):
        return f"it was made with Python {stamp['minor']} on {stamp['platform']}"
    return None


def _in_words(python: dict[str, Any]) -> str:
    return f"{python['version']} of {python['prefix']}"


def steps(wanted: Wanted, extras: Collection[str]) -> list[list[str]]:
    """What the installer is told, one call after the other."""
    more = f"[{','.join(sorted(extras))}]" if extras else ""
    options = ["--upgrade"] if wanted.upgrade else []
    cuda = wanted.backend if (wanted.backend or "").startswith("cuda") else None
    needed = [*options, *([f"mlx[{cuda}]"] if cuda else [])]
    if wanted.source.suffix != ".whl":
        # The dot keeps a folder named x[1] from being read as a project with the extra 1.
        told = [["install", *needed, "--editable", f"{wanted.source}/.{more}"]]
    else:
        # A wheel of the same version replaces the one before only where it is told to.
        requirements = list(wanted.light) or [f"{NAME}{more} @ {wanted.source.as_uri()}"]
        told = [["install", *needed, *requirements]]
        told += [["install", "--force-reinstall", "--no-deps", str(wanted.source)]]
    if cuda:
        # Both own the same library file: what is left is put back after the other has gone.
        package = f"mlx-cuda-{cuda.removeprefix('cuda')}"
        told += [["uninstall", "mlx-cpu"], ["install", "--force-reinstall", "--no-deps", package]]
    return told


def normal(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
