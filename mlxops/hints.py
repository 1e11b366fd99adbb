"""Commands in what is said to a person: they name the program that was typed, which works where it was typed."""

from __future__ import annotations

import os
import re
import shutil
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


def for_terminal(text: str) -> str:
    """What is said on stderr, broken at words where that is a terminal."""
    if not sys.stderr.isatty():
        return text
    return folded(text, shutil.get_terminal_size().columns)


def folded(text: str, width: int) -> str:
    """Sentences in lines of at most so many columns, broken at spaces.

    A command stays whole, so that it can be copied: in backticks, or a line of its own.

    >>> folded("say `inv runs --all` twice", 18)
    'say\\n`inv runs --all`\\ntwice'
    """
    return "\n".join("\n".join(_fold(line, width)) for line in text.split("\n"))


_COMMAND = re.compile(r"\s*(inv|mlx-toolkit|mlxops|mlx_lm\.\w+|cd|rm|python|pip|brew|\./\S+) ")
_WORD = re.compile(r"\s*(?:`[^`]*`|\d[\d.,]* (?:(?:[kMGT]?B|s|ms|m|h)\b|%)|[^\s`]|`)+")
"""A word with the space before it; a number and its unit are one."""


def _fold(line: str, width: int) -> list[str]:
    from rich.cells import cell_len  # where something is said to a terminal, and not before

    if cell_len(line) <= width or _COMMAND.match(line):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    found = [""]
    for word in _WORD.findall(line):
        if found[-1].strip() and cell_len(found[-1] + word) > width:
            found.append(indent + word.lstrip())
        else:
            found[-1] += word
    return found
