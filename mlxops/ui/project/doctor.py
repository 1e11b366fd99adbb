"""The findings of `doctor`: a line each, what helps below it, and the count at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from mlxops import hints, words
from mlxops.ui.terminal import lines

if TYPE_CHECKING:
    from mlxops.jobs.project.doctor import Diagnosis
    from mlxops.jobs.project.self_test import SelfTest
    from mlxops.projects.diagnosis import Finding

_STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}
_LEVEL, _CHECK = 9, 13  # columns


def findings(found: Diagnosis, console: Console) -> None:
    """All of them in their order; in a pipe each stays on its line."""
    for said in found.done:
        console.print(Text().append(set_cell_size("fixed", _LEVEL), "cyan").append(said), soft_wrap=True)
    if found.done:
        console.print()
    for each in found.findings:
        _finding(each, console)
    _count(found.findings, "", console)


def listener(console: Console, *, is_shown: bool) -> Callable[[Finding], None]:
    """What draws a finding as soon as it is known, or nothing."""
    return (lambda each: _finding(each, console)) if is_shown else (lambda each: None)


def tried(found: SelfTest, console: Console) -> None:
    """What stands below the findings of a self-test: how many there were, and the machine they are of."""
    _count(found.findings, f", {words.duration(found.seconds)}", console)
    about = {**found.about, "memory": words.size(int(found.about["memory"] or 0))}
    _folded(Text(), ", ".join(f"{name} {value}" for name, value in about.items()), "dim", console, indent=0)


def _count(found: Sequence[Finding], after: str, console: Console) -> None:
    counts = {level: sum(each.level == level for each in found) for level in ("broken", "warning")}
    said = ", ".join([f"{counts['broken']} broken", words.plural(counts["warning"], "warning")])
    text = f"\n{words.plural(len(found), 'check')}: {said}{after}"
    console.print(lines.line(text, "bold" if counts["broken"] else ""))


def _finding(each: Finding, console: Console) -> None:
    head = Text().append(set_cell_size(each.level, _LEVEL), _STYLES[each.level])
    head.append(set_cell_size(each.check, _CHECK), "bold" if each.level != "ok" else "")
    _folded(head, words.visible(each.said), "", console)
    if each.cure is not None and each.level != "ok":
        _folded(
            Text(" " * (_LEVEL + _CHECK)), f"hint: {words.visible(hints.quoted_for_program(each.cure))}", "dim", console
        )


def _folded(head: Text, said: str, style: str, console: Console, indent: int = _LEVEL + _CHECK) -> None:
    """Text that continues below itself in a terminal."""
    room = max(console.width - indent, 20)
    parts = Text(said).wrap(console, room, overflow="fold") if console.is_terminal else [Text(said)]
    for number, part in enumerate(parts):
        part.rstrip()
        start = head if number == 0 else Text(" " * indent)
        console.print(start.append(part.plain, style), soft_wrap=True)
