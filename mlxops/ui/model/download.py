"""A model that was fetched from the hub: where it is, and what it is."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.model.download import DownloadResult


def result(result: DownloadResult, console: Console) -> None:
    """The model's place, where it came from, and how to train it."""
    pairs = [
        ("source", f"{words.visible(result.source)} at {result.revision[:8]}"),
        ("type", words.visible(result.type)),
        ("parameters", words.count(result.parameters)),
        ("size", words.size(result.bytes)),
    ]
    if result.quantization is not None:
        pairs.append(("numbers", result.quantization))
    state = "downloaded and converted" if result.is_converted else "downloaded"
    if result.was_there:
        state = (
            "there already, converted from what the hub has"
            if result.is_converted
            else "there already, as the hub has it"
        )
    title = f"{words.visible(result.path)}: {state}"
    tables.facts(title, pairs, [f"`inv lora --model {shlex.quote(result.typed)}` trains it"], console)
