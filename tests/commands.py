"""What tests of every kind use: where the checkout is, another Python, and the count of injected faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
Ended = tuple[int, str, str]

FAULTS = pytest.StashKey[Counter[str]]()


def count_faults(config: pytest.Config, struck: Counter[str]) -> None:
    """Add faults, by kind, to those that the last lines of the session tell of."""
    config.stash.setdefault(FAULTS, Counter()).update(struck)


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
