"""A small checkout whose packages are made here, for the real venv and pip without an index."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT

# Tells how it was started; `quickstart --exit N` ends with N.
_PROGRAM = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "folder": os.getcwd(), "pid": os.getpid(), "prefix": sys.prefix}))
sys.exit(int(sys.argv[3]) if "--exit" in sys.argv else 0)
"""

# A build backend in the project itself, since no other is at hand without an index. While a FIFO `started` is there,
# it says so and waits until a second one, `go`, is written to.
_BACKEND = """
import fcntl, os, pathlib, zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if pathlib.Path("started").exists():
        lock = open("build.lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        pathlib.Path("started").write_text(str(os.getpgrp()))
        pathlib.Path("go").read_text()
    name = "mlxops-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        for file, text in {
            "mlxops.pth": str(pathlib.Path.cwd()),
            "program.py": "def main():\\n    exec(" + repr(pathlib.Path("program.txt").read_text()) + ")\\n",
            "mlxops-1.dist-info/METADATA": METADATA,
            "mlxops-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            "mlxops-1.dist-info/entry_points.txt": "[console_scripts]\\nmlx-toolkit = program:main\\n",
            "mlxops-1.dist-info/RECORD": "",
        }.items():
            wheel.writestr(file, text)
    return name

METADATA = '''Metadata-Version: 2.1
Name: mlxops
Version: 1
Provides-Extra: dev
Requires-Dist: pytest; extra == "dev"
'''
"""

_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "mlxops"
version = "1"
[project.optional-dependencies]
dev = ["pytest"]
[project.scripts]
mlx-toolkit = "program:main"
"""


UV = Path(sys.executable).parent / "uv"
"""The installer that takes a tenth of pip's time; it is among what tests need."""


def shell_or_skip(name: str) -> str:
    """The path of a shell; where it is missing the test is skipped, but under MLXOPS_TEST_SHELLS fails."""
    path = shutil.which(name)
    if path is None:
        assert "MLXOPS_TEST_SHELLS" not in os.environ, f"there is no {name} here"
        pytest.skip(f"there is no {name} here")
    return path


def write_wheels(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "pytest-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pytest.py", _PROGRAM)
        wheel.writestr("pytest-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: pytest\nVersion: 1\n")
        wheel.writestr("pytest-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("pytest-1.dist-info/RECORD", "")


def write_checkout(folder: Path) -> None:
    package = folder / "mlxops"
    for name in ("projects", "system"):
        shutil.copytree(ROOT / "mlxops" / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py", "files.py", "resources.py"):
        shutil.copy(ROOT / "mlxops" / name, package)
    shutil.copy(ROOT / "install.sh", folder)
    (folder / "pyproject.toml").write_text(_PYPROJECT)
    (folder / "backend.py").write_text(_BACKEND)
    (folder / "program.txt").write_text(_PROGRAM)
    (folder / "tests").mkdir()
