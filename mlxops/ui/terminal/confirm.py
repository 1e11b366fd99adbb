"""Asking before something is destroyed."""

from __future__ import annotations

import sys

from rich.console import Console

from mlxops.errors import Refused


def confirm(question: str, console: Console, *, yes: bool) -> bool:
    """Whether to go on: `yes`, or what a person at the terminal says, y or yes being yes and all else no.

    Raises `Refused` where nobody is there to ask.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and console.is_terminal):
        raise Refused("this removes something, and nobody is there to ask", hint="--yes does it without asking")
    console.print(f"{question} [y/N] ", end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
