"""A fused model: where it is, and how far it is from the base model with the adapter."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.model.fuse import FuseResult


def result(result: FuseResult, console: Console) -> None:
    """The model's place, the comparison, and how to talk to it."""
    pairs = [("base model", words.visible(result.base)), ("adapter", words.visible(result.adapter))]
    if result.layers is not None:
        pairs.append(("fused layers", words.count(result.layers)))
    if result.parity is not None:
        pairs += parity(result.parity)
    if result.uploaded is not None:
        pairs.append(("uploaded to", words.visible(result.uploaded)))
    notes = [*result.notes, f"`inv chat {shlex.quote(result.typed)}` talks to it"]
    if result.parity is None:
        notes.insert(0, "not compared with base model and adapter")
    title = f"{words.visible(result.path)}: {'fused already' if result.was_there else 'fused'}"
    tables.facts(title, pairs, notes, console)


def parity(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far the fused model is from base and adapter, as labels and values."""
    before, after = (words.number(figures[f"perplexity_{side}"]) for side in ("before", "after"))
    rows = f"{words.plural(figures['rows'], 'row')} of {words.visible(figures['data'])}"
    return [
        ("compared on", f"{words.plural(figures['tokens'], 'trained token')}, {rows}"),
        ("changed", f"{words.share(figures['changed_tokens'])} of the most likely tokens"),
        ("KL divergence", f"{words.short(figures['kl_divergence'])} nats per token"),
        ("logits", f"differ by {words.short(figures['logit_difference'])} at most"),
        ("perplexity", f"{before} before, {after} after"),
    ]
