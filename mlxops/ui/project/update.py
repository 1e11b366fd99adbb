"""What an update brings, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.project.update import Updated, UpdatePlan

_MOST = 20  # entries of the changelog that are shown


def plan(found: UpdatePlan, console: Console) -> None:
    """What there is to update to, and what is new in it."""
    if found.is_up_to_date:
        console.print(f"mlxops {found.before} is the newest", soft_wrap=True)
        return
    commits = f", {words.plural(found.commits, 'commit')}" if found.commits is not None else ""
    console.print(tables.heading(f"mlxops {found.before} → {found.after or 'newest'}{commits}"), soft_wrap=True)
    _news(found.news, console)


def done(found: Updated, console: Console) -> None:
    """What was done, and what becomes of runs and projects."""
    console.print(f"mlxops is at {found.after}", soft_wrap=True)
    if found.changed:
        console.print(f"changed here: {', '.join(found.changed)}", soft_wrap=True)
    if found.unfinished:
        how = "resume, named inexact since these versions changed" if found.changed else "resume exactly"
        names = words.listed([*map(words.visible, found.unfinished)], 3)
        console.print(f"unfinished runs {how}, by the settings they stored: {names}", soft_wrap=True)
    console.print(
        "an older registry is migrated when it is next opened, after a copy to .mlxops/backups; "
        "`inv install-deps` brings another project's own environment up to date",
        soft_wrap=not console.is_terminal,
    )


def _news(entries: Sequence[str], console: Console) -> None:
    for entry in entries[:_MOST]:
        text = Text(words.visible(entry))
        folded = text.wrap(console, max(console.width - 4, 20)) if console.is_terminal else [text]
        for number, part in enumerate(folded):
            part.rstrip()
            console.print(Text("    " if number else "  - ").append_text(part), soft_wrap=True)
    if len(entries) > _MOST:
        console.print(f"  and {len(entries) - _MOST:,} more in CHANGELOG.md")
