"""Commands in what is said to a person: they name the program that was typed, which works where it was typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def program() -> str:
    """The program that was typed: `mlx-toolkit`, else `inv`."""
    started = Path(sys.argv[0])
    is_toolkit = started.name == "mlx-toolkit" or (started.name == "__main__.py" and started.parent.name == "mlxops")
    return "mlx-toolkit" if is_toolkit else "inv"


def for_program(text: str) -> str:
    """A sentence of ours whose commands begin with `inv`, with the program that was typed instead."""
    if started_as := os.environ.get("MLXOPS_STARTED_AS"):
        text = text.replace("inv quickstart", f"{started_as} quickstart")
    words = text.split(" ")
    return " ".join(word.replace("inv", program()) if word in ("inv", "`inv", "(`inv") else word for word in words)


def quoted_for_program(text: str) -> str:
    """The same of a sentence with names in it, where only a command in backticks is sure to be one."""
    return text.replace("`inv ", f"`{program()} ")
