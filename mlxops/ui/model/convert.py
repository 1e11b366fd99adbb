"""A converted model: where it is, what it has become, and how to use it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.model.convert import ConvertResult


def result(result: ConvertResult, console: Console) -> None:
    """The model's place, its numbers before and after, and how to talk to it."""
    pairs = [
        ("converted from", words.visible(result.source)),
        ("numbers", f"{result.numbers_before} before, {result.numbers_after} after"),
        ("size", f"{words.size(result.bytes_before)} before, {words.size(result.bytes_after)} after"),
        ("bits per weight", f"{result.bits_per_weight:.2f}"),
    ]
    if result.uploaded is not None:
        pairs.append(("uploaded to", words.visible(result.uploaded)))
    title = f"{words.visible(result.path)}: {'converted already' if result.was_there else 'converted'}"
    tables.facts(title, pairs, [f"`inv chat {shlex.quote(result.typed)}` talks to it"], console)
