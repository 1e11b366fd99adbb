"""What an import says: which run there is now, what was read, and how to continue."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.hints import program
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.run.imports.run import ImportResult, OwnRun


def imported(facts: ImportResult | OwnRun, console: Console, *, as_json: bool) -> None:
    """The run that was made, brought up to date, or there all the time."""
    if as_json:
        tables.json_out(facts, console)
        return
    name = words.visible(facts.name)
    commands = [f"{program()} run.show {shlex.quote(name)} shows it"]
    if facts.is_own:
        text = f"{words.visible(facts.source)} is of the run {name}, which is in the registry: nothing was imported"
        tables.facts(text, [], commands, console)
        return
    is_changed = any(facts.changed.values())
    title = "imported" if facts.is_new else "brought up to date" if is_changed else "nothing new"
    read = (("report", facts.reports), ("validation", facts.validations), ("checkpoint", facts.checkpoints))
    pairs = [
        ("from", words.visible(facts.source)),
        ("read", ", ".join(words.plural(count, name) for name, count in read)),
        ("iteration", _progress(facts)),
    ]
    if facts.log and facts.log != facts.source:
        pairs.insert(1, ("log", words.visible(facts.log)))
    if facts.goes_on:
        commands.append(f"{words.visible(facts.goes_on)} continues it in a run of its own")
    tables.facts(f"{name}: {title}", pairs, [*map(words.visible, facts.notes), *commands], console)


def _progress(facts: ImportResult) -> str:
    if facts.target_iterations is None:
        return f"{words.plural(facts.iteration, 'iteration')}, target not known, {facts.status}"
    return f"{facts.iteration:,} of {facts.target_iterations:,}, {facts.status}"
