"""Which Python on which machine will do: what MLX's wheels and virtual environments ask for.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import struct
import sys
import sysconfig
from dataclasses import dataclass

from mlxops import system
from mlxops.errors import Failed
from mlxops.system import host

# The wheels of mlx 0.32: CPython, macOS 14 on Apple silicon, Linux on these processors with this glibc.
_MACOS, _GLIBC, _LINUX_MACHINES = (14,), (2, 35), ("x86_64", "aarch64")

# Without these there is no environment, no registry, no BLAS and no download; Debian and home-made Pythons lack some.
_MODULES = {"venv": "venv", "ensurepip": "ensurepip", "_sqlite3": "sqlite3", "_ctypes": "ctypes", "_ssl": "ssl"}

WITHOUT_ROSETTA = "arch -arm64 zsh starts a shell without Rosetta; there, give the same command again"

_MACOS_PYTHON = "brew install python@3.13, or https://www.python.org/downloads/macos/"


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python and the machine under it. `glibc` is None for another C library, `lacks` names missing modules.

    `is_universal` says that it has code for both kinds of Mac, `is_translated` that Rosetta runs that for Intel.
    """

    path: str
    version: tuple[int, int]
    implementation: str
    bits: int
    system: str
    machine: str
    macos: tuple[int, ...] = ()
    glibc: tuple[int, ...] | None = None
    lacks: tuple[str, ...] = ()
    is_universal: bool = False
    is_translated: bool = False

    @property
    def is_started_wrongly(self) -> bool:
        """Whether it would do, if it were started without Rosetta, which a shell hands on to all that it starts."""
        return self.machine == "x86_64" and self.is_universal and self.is_translated


def this() -> Interpreter:
    """The Python at work; uv makes environments without its modules for that."""
    has_uv = shutil.which("uv") is not None
    return Interpreter(
        path=sys.executable,
        version=sys.version_info[:2],
        implementation=platform.python_implementation(),
        bits=8 * struct.calcsize("P"),
        system=system.NAME,
        machine=platform.machine(),
        macos=_numbers(host.macos_version()),
        glibc=_glibc(),
        lacks=tuple(
            name
            for module, name in _MODULES.items()
            if importlib.util.find_spec(module) is None and not (has_uv and name in ("venv", "ensurepip"))
        ),
        is_universal=sysconfig.get_platform().endswith("-universal2"),
        is_translated=system.sysctl("sysctl.proc_translated") == "1",
    )


def _glibc() -> tuple[int, ...] | None:
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return None
    return _numbers(library.removeprefix("glibc "))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def misfit(python: Interpreter) -> Failed | None:
    """Why this one will not do and what to get instead, None where it does."""
    return _wrong_machine(python) or _wrong_python(python)


def tools_missing() -> list[str]:
    """Hints on what is not needed to install but later: a compiler; on a Mac, Apple's developer tools."""
    if system.ON_MACOS:
        without = "hint: without Apple's developer tools there is no git; xcode-select --install adds them"
        return [] if system.has_developer_tools() else [without]
    if shutil.which("g++"):
        return []
    return ["hint: without g++ MLX trains slower on a CPU; sudo apt install g++, or sudo dnf install gcc-c++"]


def _wrong_machine(python: Interpreter) -> Failed | None:
    if python.system not in ("darwin", "linux"):
        return Failed("MLX runs on macOS and on Linux", hint="on Windows, WSL has a Linux: `wsl --install`")
    if python.bits != 64:
        return Failed(f"{python.path} is a {python.bits}-bit Python, and MLX needs one of 64 bits")
    if python.system == "darwin":
        return _wrong_mac(python)
    if python.machine not in _LINUX_MACHINES:
        return Failed(f"MLX has no wheel for Linux on {python.machine}, only on {' and '.join(_LINUX_MACHINES)}")
    if python.glibc is None:
        return Failed(
            "MLX has wheels for glibc only, and this Linux has another C library, as Alpine has musl",
            hint="take Debian, Ubuntu or Fedora; in a container: the image python:3.13",
        )
    if python.glibc < _GLIBC:
        return Failed(
            f"MLX needs glibc {_dotted(_GLIBC)}, and this Linux has {_dotted(python.glibc)}",
            hint="Debian 12, Ubuntu 22.04, Fedora 36 and RHEL 10 have it, and all that came after them",
        )
    return None


def _wrong_mac(python: Interpreter) -> Failed | None:
    if python.is_started_wrongly:
        return Failed(
            f"{python.path} would do, but Rosetta runs its code for Intel processors, as this shell runs",
            hint=WITHOUT_ROSETTA,
        )
    if python.machine != "arm64":
        return Failed(
            f"{python.path} is made for Intel processors, and MLX runs on Macs with Apple silicon",
            hint=f"on Apple silicon get a Python of its kind: {_MACOS_PYTHON}",
        )
    if python.macos < _MACOS:
        return Failed(f"MLX needs macOS {_dotted(_MACOS)}, and this is {_dotted(python.macos)}")
    return None


def _wrong_python(python: Interpreter) -> Failed | None:
    version = _dotted(python.version)
    if python.implementation != "CPython":
        return Failed(f"{python.path} is {python.implementation}, and MLX has wheels for CPython")
    if not python.lacks:
        return None
    if python.system == "darwin":
        return Failed(f"{python.path} lacks {', '.join(python.lacks)}", hint=_MACOS_PYTHON)
    if {"venv", "ensurepip"} & set(python.lacks):
        return Failed(
            f"{python.path} cannot make virtual environments: it lacks {', '.join(python.lacks)}",
            hint=f"Debian and Ubuntu: sudo apt install python{version}-venv; Fedora: sudo dnf install python3",
        )
    return Failed(
        f"{python.path} was built without {', '.join(python.lacks)}",
        hint="the system's own has it: sudo apt install python3-venv, or sudo dnf install python3; PYTHON names it",
    )


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
