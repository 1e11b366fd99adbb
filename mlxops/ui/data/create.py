"""Files to start from: what was written, and what to do with it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.data.create import CreatedData


def result(created: CreatedData, console: Console, *, as_json: bool) -> None:
    """The files with their rows, and the commands that come next."""
    if as_json:
        tables.json_out(created, console)
        return
    pairs = [(name, words.plural(count, "row")) for name, count in created.rows.items()]
    pairs.append(("README.md", "explains the formats"))
    folder = shlex.quote(created.folder)
    notes = ["`inv lora` does not train on preference rows in this version"]
    if created.format != "preference":
        notes = [f"`inv lora --data {folder} --model NAME` trains on them"]
    state = "already" if created.was_there else "created"
    tables.facts(
        f"{words.visible(created.folder)}: {state} {words.plural(sum(created.rows.values()), 'row')}",
        pairs,
        notes,
        console,
    )
