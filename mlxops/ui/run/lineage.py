"""A family of runs as a tree: where each child left its parent, and how good each became."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from mlxops import words

if TYPE_CHECKING:
    from mlxops.registry import FamilyMember


def tree(rows: Sequence[FamilyMember], name: str) -> RenderableType:
    """The runs of a family, `name` marked; nothing for no rows."""
    branches: dict[str, Tree] = {}
    tops = []
    for row in _parents_first(rows):
        parent = branches.get(row["parent"]) if row["parent"] is not None else None
        text = _line(row, is_it=row["run"] == name)
        branches[row["run"]] = parent.add(text) if parent else Tree(text)
        if parent is None:
            tops.append(branches[row["run"]])
    return tops[0] if tops else Text()


def _parents_first(rows: Iterable[FamilyMember]) -> list[FamilyMember]:
    return sorted(rows, key=lambda row: row["generations"])


def _line(row: FamilyMember, *, is_it: bool) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis").append(words.visible(row["run"]), style="bold" if is_it else "")
    if is_it:
        text.append(" (this run)")
    facts = []
    if row["parent"] is not None:
        facts.append(f"from {words.count(row['branch_iteration'])}")
    facts.append(f"{row['status']} at {words.progress(row['iteration'], row['target_iterations'])}")
    if row["best_validation_loss"] is not None:
        facts.append(f"best {words.number(row['best_validation_loss'])} at {words.count(row['best_iteration'])}")
    return text.append(f"  {', '.join(facts)}", style="dim")
