"""What tests of every kind use: where the checkout is, the machine's cache, another Python, the count of faults."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlxops.projects.machine import user_cache

ROOT = Path(__file__).resolve().parent.parent
Ended = tuple[int, str, str]


def _cache() -> Path:
    folder = user_cache()
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"mlxops-tests-{os.getuid()}"


CACHE = _cache()
"""Of the machine, for what is the same for every test (the fast BLAS, compiled kernels, the sample model).

Read at import: tests have a home and a cache of their own.
"""

MADE_ONCE = ("blas", "kernels")
"""What of the cache is made once a machine, as a user has it: 25 MB of BLAS, and what MLX compiles."""


def own_cache(place: Path) -> Path:
    """A cache that is new but for what is made once a machine."""
    place.mkdir(parents=True, exist_ok=True)
    for name in MADE_ONCE:
        if not (place / name).is_symlink():
            (place / name).symlink_to(CACHE / name)
    return place


def copy_writable(source: Path, target: Path) -> Path:
    """A copy of a folder of the checkout that may be changed, though the checkout may be read-only."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    return target


FAULTS = pytest.StashKey[Counter[str]]()


def count_faults(config: pytest.Config, struck: Counter[str]) -> None:
    """Add faults, by kind, to those that the last lines of the session tell of."""
    config.stash.setdefault(FAULTS, Counter()).update(struck)


def run_here(command: str, patch: pytest.MonkeyPatch, *, namespace: Any = None) -> int:
    """`mlx-toolkit` with these words in this process: its exit code. `namespace` is the toolkit's own unless given.

    The words stay those of the process until the patch ends.
    """
    from mlxops.__main__ import Toolkit
    from mlxops.tasks import namespace as ours

    patch.setattr(sys, "argv", ["mlx-toolkit", *shlex.split(command)])
    patch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    try:
        Toolkit(name="mlx-toolkit", binary="mlx-toolkit", version="1", namespace=namespace or ours).run()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run_python(*arguments: str, environment: dict[str, str] | None = None) -> Ended:
    """This Python in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
    )
    return ended.returncode, ended.stdout, ended.stderr


def start_in_a_group(
    words: Sequence[str | Path], *, folder: Path, environment: dict[str, str]
) -> subprocess.Popen[str]:
    """Start a program in a process group of its own, as a terminal does, with what it says in pipes."""
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
