"""What a model is, what came of reading it through, and what was removed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.model.info import ModelFacts
    from mlxops.jobs.model.remove import RemovalPlan
    from mlxops.jobs.model.verify import VerifiedModel


def facts(found: ModelFacts, console: Console) -> None:
    """All that is known of a model, with a conversation as its template writes it."""
    template = found.template
    pairs = [
        ("type", words.visible(found.type)),
        ("parameters", words.count(found.parameters)),
        ("layers", words.count(found.layers)),
        ("hidden size", words.count(found.hidden_size)),
        ("context", f"{words.count(found.context_length)} tokens"),
        ("numbers", found.numbers),
        ("size", words.size(found.bytes)),
        ("tokenizer", found.tokenizer),
        ("generation stops at", words.visible(", ".join(template.stops) or words.NOTHING)),
    ]
    if template.conversation is not None:
        agrees = {True: "", False: ", at which generation does not stop", None: ""}[template.agrees]
        pairs.append(("a turn ends with", words.visible(template.end_of_turn or words.NOTHING) + agrees))
        pairs.append(("a conversation", words.visible(template.conversation)))
    rows = f"{words.plural(found.rows, 'row')} of {words.plural(found.width, 'token')}"
    pairs += [
        ("memory, making text", f"{words.size(found.loading)} for 2,048 tokens"),
        ("memory, LoRA", f"{words.size(found.training)} for {rows}"),
        ("memory, free here", words.size(found.free)),
    ]
    if found.source is not None:
        pairs.append(("source", words.visible(f"{found.source} at {found.revision or words.NOTHING}")))
        pairs.append(("verified", found.verified_at or words.NOTHING))
    notes = [*found.notes, f"`inv model.verify {shlex.quote(found.path)}` reads it through"]
    tables.facts(words.visible(found.path), pairs, notes, console)


def verified(found: Sequence[VerifiedModel], console: Console) -> None:
    """A line for each model, and its problems below."""
    if not found:
        console.print("no models in models/", soft_wrap=True)
    for each in found:
        said = [words.plural(each.tensors, "tensor"), f"{words.plural(each.compared, 'file')} compared by hash"]
        state = words.plural(len(each.problems), "problem") if each.problems else "whole"
        line = f"{words.visible(each.path)}: {state} ({', '.join(said)})"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
        for problem in (*each.problems, *each.notes):
            console.print(f"  {words.visible(problem)}", soft_wrap=True, markup=False, highlight=False)


def removed(plan: RemovalPlan, console: Console) -> None:
    """What was removed, and the bytes that are free now."""
    freed = "the link alone" if plan.is_link else f"{words.size(plan.frees)} freed"
    console.print(f"removed {words.visible(plan.path)}: {freed}", soft_wrap=True, markup=False, highlight=False)
