"""Asking before something is destroyed."""

from __future__ import annotations

import sys

from rich.console import Console

from mlxops.errors import Refused
from mlxops.hints import folded


def confirm(question: str, console: Console, *, yes: bool) -> bool:
    """Whether to do it: `yes`, or what a person at the terminal says, y or yes being yes and all else no.

    Raises `Refused` where there is no terminal to confirm on.
    """
    if yes:
        return True
    if not can_ask(console):
        raise Refused(f"{question} no terminal to confirm on", hint="add `--yes`")
    return ask(question, console)


def can_ask(console: Console) -> bool:
    """Whether a person sits at a terminal."""
    return sys.stdin.isatty() and console.is_terminal


def ask(question: str, console: Console) -> bool:
    """What the person at the terminal says: y or yes is yes, and all else no."""
    console.print(folded(f"{question} [y/N] ", console.width), end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
