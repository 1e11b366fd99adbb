"""A project's own environment, entered by whatever program was started: its version of mlxops opens its registry."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

from mlxops import files

_HANDED_OVER = "MLXOPS_HANDED_OVER_TO"  # also in templates/project/basic/tasks.py.tmpl


def python_of(root: Path) -> Path | None:
    """The project's Python, where it has mlxops; None where this is it already."""
    environment = root / ".venv"
    python = environment / "bin" / "python"
    has_mlxops = any(environment.glob("lib/python*/site-packages/mlxops*"))
    if not python.exists() or not has_mlxops or files.is_same(Path(sys.prefix), environment):
        return None
    # An environment that takes itself for another one would be handed over to for ever.
    return None if os.environ.get(_HANDED_OVER) == str(environment) else python


def enter(python: Path, module: str) -> NoReturn:
    """Become the same command in an environment; `module` is that of the program, mlxops or invoke."""
    from contextlib import suppress

    from mlxops.projects import environment  # not for those who are in it already

    with suppress(OSError):  # another user's: then it is for Python to say what it misses
        environment.show_hidden(python.parents[1])
    sys.stdout.flush()
    os.environ[_HANDED_OVER] = str(python.parents[1])
    # -P: the files of the current folder are no modules
    os.execv(python, [str(python), "-P", "-m", module, *sys.argv[1:]])


def has_mlx() -> bool:
    """Whether MLX is installed beside this mlxops; the global installation does without."""
    return importlib.util.find_spec("mlx_lm") is not None
