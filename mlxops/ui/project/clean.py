"""What takes room, and what was removed: facts in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import confirm, tables

if TYPE_CHECKING:
    from mlxops.jobs.project.clean import Cleaned, RoomTaken


def found(kinds: Sequence[RoomTaken], console: Console) -> None:
    """What takes room by kind, what it costs to remove it, and what is only removed where it is named."""
    if not kinds:
        console.print("nothing takes room that can go")
        return
    rows = [[each.kind, words.size(each.bytes), each.what, each.cost] for each in kinds]
    tables.table(["kind", "size", "what", "afterwards"], rows, console)
    if others := [each for each in kinds if not each.is_usual]:
        names = ",".join(each.kind for each in others)
        console.print(
            f"{names} {'stays' if len(others) == 1 else 'stay'} unless named: `--what {names}`",
            soft_wrap=True,
        )


def can_go(kinds: Sequence[RoomTaken], console: Console) -> bool:
    """Whether to ask about removing it; where nobody can be asked, what removes it is said."""
    if not any(each.is_usual for each in kinds):
        return False
    if not confirm.can_ask(console):
        console.print("nothing was removed: `--yes` removes it", soft_wrap=True)
        return False
    return True


def removed(done: Cleaned, console: Console) -> None:
    """What was removed."""
    kinds = ", ".join(each.kind for each in done.removed)
    console.print(f"removed {kinds}: {words.size(done.bytes)}", soft_wrap=True)
