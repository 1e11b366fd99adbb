"""Makes an environment of another Python with what the tests need, as `install.sh test` does in `.venv`."""

from __future__ import annotations

import sys
from pathlib import Path

from mlxops.projects import environment
from mlxops.projects.environment_plan import Wanted

if __name__ == "__main__":
    folder, python = map(Path, sys.argv[1:])
    checkout = Path(__file__).resolve().parent.parent
    wanted = Wanted(folder=folder, source=checkout, extras=frozenset({"dev"}), python=python)
    environment.make(wanted, log=lambda line: print(line, flush=True))
