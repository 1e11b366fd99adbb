"""What the list of checkpoints and the explanation of a folder say, as `--json` has it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

from commands import Ended

Program = Callable[..., Ended]


def groups(mlxops: Program, command: str = "checkpoints") -> list[dict[str, Any]]:
    code, out, err = mlxops(f"{command} --json")
    assert (code, err) == (0, "")
    return list(json.loads(out)["groups"])


def explained(mlxops: Program, command: str) -> dict[str, Any]:
    code, out, err = mlxops(f"{command} --json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    return dict(found)


def typed(command: str) -> list[str]:
    """The options of a command that was given as advice."""
    program, task, *options = shlex.split(command)
    assert (program, task) == ("mlx-toolkit", "lora")
    return options
