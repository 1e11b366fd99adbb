"""Drawings of checkpoints: the list, what pruning would take, what verifying found, and a folder explained."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlxops import hints, times, words
from mlxops.ui.terminal import confirm

if TYPE_CHECKING:
    from mlxops.jobs.checkpoints.listing import CheckpointFolder, ListedCheckpoint, Listing
    from mlxops.jobs.checkpoints.prune import Going
    from mlxops.jobs.checkpoints.use import OfferedWeights
    from mlxops.jobs.checkpoints.verify import Verification

_STYLES = {"whole": "green", "weights only": "yellow", "damaged": "red", "missing": "red", "pruned": "dim"}
_RIGHT = ("iter", "at", "size", "age", "train", "valid")


def listing(found: Listing, console: Console, now: datetime, *, show_all: bool) -> None:
    """The checkpoints by folder; pruned ones, and runs without any, only where all are asked for."""
    groups = [_shown(group, show_all=show_all) for group in found.groups]
    groups = [group for group in groups if group.items or group.problem or show_all]
    if not groups:
        console.print(
            hints.for_program("no checkpoints yet: `inv lora --model MODEL --data DATA` makes them"), soft_wrap=True
        )
    tables = [[_cells(item, group, now) for item in group.items] for group in groups]
    widths = _widths([cells for table in tables for cells in table], console.width)
    for place, (group, table) in enumerate(zip(groups, tables, strict=True)):
        text = Text("\n" if place else "", no_wrap=True, overflow="ellipsis")
        text.append(_title(group), "bold").append(_about(group))
        if table:
            _append_table(text, table, widths)
        console.print(text, soft_wrap=not console.is_terminal)
        console.print(_closing(group), soft_wrap=not console.is_terminal)
    count = sum(len(group.items) for group in groups)
    if len(groups) > 1:
        console.print(f"\n{count:,} checkpoints in {len(groups):,} folders, {words.size(found.bytes)}")
    for line in found.unreadable:
        console.print(f"not looked into: {words.visible(line)}", soft_wrap=True)


def _shown(group: CheckpointFolder, *, show_all: bool) -> CheckpointFolder:
    return replace(group, items=tuple(item for item in group.items if show_all or item.state != "pruned"))


def _title(group: CheckpointFolder) -> str:
    return words.visible(group.run or group.folder)


def _about(group: CheckpointFolder) -> str:
    parts = [group.status or {"unknown run": "unknown to the registry"}.get(group.kind, "made elsewhere")]
    if group.target:
        parts.append(f"{words.count(group.iteration)} of {words.count(group.target)}")
    if group.run:
        parts.append(words.visible(group.folder))
    return "  " + "  ".join(parts)


def _cells(item: ListedCheckpoint, group: CheckpointFolder, now: datetime) -> dict[str, str]:
    share = item.iteration / group.target if item.iteration and group.target else None
    marks = [("best", item.is_best), ("offered", item.is_offered), ("next", item.is_next)]
    created = item.created_at
    return {
        "iter": words.count(item.iteration) if item.iteration is not None else "final",
        "at": words.percent(share),
        "size": words.size(item.bytes),
        "age": words.duration((now - times.time_of(created)).total_seconds()) if created else words.NOTHING,
        "train": words.number(item.train_loss),
        "valid": words.number(item.validation_loss),
        "state": item.state,
        "": " ".join(name for name, is_so in marks if is_so),
    }


def _widths(cells: Sequence[Mapping[str, str]], room: int) -> dict[str, int]:
    """The width of each column in all tables; those of less use go where the terminal is narrow."""
    if not cells:
        return {}
    widths = {name: max(cell_len(name), *(cell_len(each[name]) for each in cells)) for name in cells[0]}
    for name in ("train", "at", "age", "size", "valid"):
        if sum(widths.values()) + 2 * (len(widths) - 1) <= room:
            break
        del widths[name]
    return widths


def _append_table(text: Text, table: Sequence[Mapping[str, str]], widths: Mapping[str, int]) -> None:
    text.append("\n" + "  ".join(_aligned(name, name, width) for name, width in widths.items()).rstrip(), "dim")
    for cells in table:
        text.append("\n")
        for name, width in widths.items():
            text.append(
                _aligned(name, cells[name], width) + "  ", _STYLES.get(cells[name], "") if name == "state" else ""
            )
        text.rstrip()


def _aligned(column: str, value: str, width: int) -> str:
    space = " " * (width - cell_len(value))
    return space + value if column in _RIGHT else value + space


def _closing(group: CheckpointFolder) -> str:
    """What resuming would do, and of each checkpoint that is not in order why."""
    lines = [f"  {item.file}: {item.problem}" for item in group.items if item.problem]
    sentence = f"  {group.next}"
    if group.seconds_kept is not None and group.seconds_left:
        kept, left = words.duration(group.seconds_kept), words.duration(group.seconds_left)
        sentence += f"; {kept} of work is kept, about {left} is left"
    return "\n".join(map(words.visible, [*lines, sentence]))


# pruning -------------------------------------------------------------------------------------------------------------


def pruning(planned: Sequence[Going], console: Console, *, is_done: bool) -> None:
    """What goes of each run, or what went."""
    for going in planned:
        for line in _going(going):
            console.print(words.visible(line), soft_wrap=True)
    total = sum(going.bytes for going in planned)
    verb = "freed" if is_done else "would be freed"
    nothing = "nothing was removed" if is_done else "nothing would be deleted"
    console.print(f"{words.size(total)} {verb}" if any(not going.is_nothing for going in planned) else nothing)


def _going(going: Going) -> list[str]:
    name = going.run
    if going.left_out:
        return [f"{name}: left out, {going.left_out}"]
    lines = [f"{name}: counts on nothing damaged; {each}" for each in going.damaged]
    states_alone = [each for each in going.states if each not in going.adapters]
    found = [_checkpoints(going.adapters)] if going.adapters else []
    found += (
        [f"the {_noun('state', states_alone)} of {_checkpoints(states_alone)}, whose weights stay"]
        if states_alone
        else []
    )
    found += [f"what a kill left: {', '.join(going.left_overs)}"] if going.left_overs else []
    found += [f"damaged ones set aside: {', '.join(going.set_aside)}"] if going.set_aside else []
    if found:
        lines.append(f"{name}: {'; '.join(found)}: {words.size(going.bytes)}")
    return lines


def _noun(noun: str, numbers: Sequence[int]) -> str:
    return noun if len(numbers) == 1 else f"{noun}s"


def _checkpoints(numbers: Sequence[int], shown: int = 8) -> str:
    return f"{_noun('checkpoint', numbers)} {words.listed([words.count(number) for number in numbers], shown)}"


def agree(console: Console, planned: Sequence[Going]) -> bool | None:
    """Show what would be deleted and what a person says to it, None where there is no terminal to confirm on."""
    pruning(planned, console, is_done=False)
    if not (console.is_terminal and sys.stdin.isatty()):
        return None
    return confirm.ask("remove them?", console)


# verifying and choosing ----------------------------------------------------------------------------------------------


def verification(found: Verification, console: Console) -> None:
    """What reading everything through found: the bad ones by name, the rest counted."""
    counts: dict[str, int] = {}
    for each in found.checkpoints:
        counts[each.result] = counts.get(each.result, 0) + 1
        if each.result in ("damaged", "missing"):
            where = "final" if each.iteration is None else f"{each.iteration:,}"
            line = f"{each.run or each.folder} {where}: {each.result}, {each.reason}"
            console.print(words.visible(line), style="red", soft_wrap=True)
    lines = [*found.consequences, *(f"not looked into: {each}" for each in found.unreadable)]
    if not found.is_recorded:
        lines.append("nothing of this is recorded: there is no registry that can be written")
    for line in lines:
        console.print(words.visible(line), soft_wrap=True)
    told = ", ".join(f"{count:,} {result}" for result, count in sorted(counts.items(), key=lambda each: -each[1]))
    console.print(f"{told or 'no checkpoints'}; {words.size(found.bytes)} read", soft_wrap=True)


def offered(chosen: OfferedWeights, console: Console) -> None:
    """What a run offers from now on."""
    loss = "" if chosen.validation_loss is None else f", validation loss {words.number(chosen.validation_loss)}"
    line = f"{chosen.run} offers iteration {chosen.iteration:,}{loss}, in {chosen.file}"
    console.print(words.visible(line), soft_wrap=True)
    console.print("a resume never reads it; the next checkpoint of the training replaces it", soft_wrap=True)
