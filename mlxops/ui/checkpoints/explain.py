"""Drawing a folder explained: what was looked at, what it proves, what would be done, and the command for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import hints, words

if TYPE_CHECKING:
    from mlxops.jobs.checkpoints.explain import Explanation, File
    from mlxops.registry import JsonObject

_MARKS = {"info": "", "warning": "warning: ", "error": "error: "}
_STYLES = {"info": "", "warning": "yellow", "error": "red"}


def explanations(found: Sequence[Explanation], console: Console) -> None:
    """Folders explained, one after the other."""
    if not found:
        console.print(
            hints.for_program("no adapter folder here: `inv lora --model MODEL --data DATA` makes one"), soft_wrap=True
        )
    for place, each in enumerate(found):
        if place:
            console.print()
        for line in _lines(each):
            console.print(line, soft_wrap=True)


def _lines(found: Explanation) -> Iterator[Text]:
    yield Text(f"{words.visible(found.folder)}: {words.visible(found.what)}", "bold")
    if found.problem:
        yield Text(f"  this folder {words.visible(found.problem)}", "red")
    yield _step(1, "the files")
    for file in found.files:
        yield from _file(file)
    if not found.files:
        yield Text("  none of training's")
    yield _step(2, "the settings")
    yield Text("  " + (_settings(found.says) if found.says else "no adapter_config.json that can be read"))
    yield _step(3, "the registry")
    yield from _registry(found)
    yield _step(4, "what that proves")
    for finding in found.findings:
        yield Text(f"  {_MARKS[finding.level]}{words.visible(finding.message)}", _STYLES[finding.level])
    if not found.findings:
        yield Text("  nothing contradicts anything")
    if found.newest:
        yield Text(f"  the newest weights: {words.visible(found.newest.name)}, {found.newest.reason}")
    for each in found.set_aside:
        yield Text(f"  resuming sets aside {words.visible(each)}", "yellow")
    yield _step(5, f"what {hints.program()} lora does with it")
    decision = found.decision
    yield Text(f"  {_DECISIONS[decision.kind]}: {words.visible(decision.reason)}")
    if decision.hint:
        yield Text(f"  {words.visible(decision.hint)}")
    yield _step(6, "the command")
    yield Text(f"  {words.visible(found.command)}" if found.command else "  none: there is nothing to resume")
    for note in found.notes:
        yield Text(f"  {words.visible(note)}", "dim")


_DECISIONS = {
    "new": "starts a new run",
    "resume": "continues",
    "extend": "continues beyond the old target",
    "finished": "does nothing",
    "refuse": "refuses",
}


def _step(number: int, title: str) -> Text:
    return Text(f"{number}. {title}", "bold")


def _file(file: File) -> Iterator[Text]:
    yield Text(f"  {words.visible(file.name)}").append(f"  ({file.recognised})", "dim")
    facts = [words.size(file.bytes), f"written {file.modified_at[:19].replace('T', ' ')}"]
    if file.arrays:
        facts.append(_arrays(file.arrays))
    if "iteration" in file.metadata:
        facts.append(f"says iteration {words.visible(file.metadata['iteration'])}")
    if file.metadata.get("fingerprint"):
        facts.append(f"fingerprint {words.visible(file.metadata['fingerprint'])[:12]}")
    if file.sha256:
        facts.append(f"SHA-256 {file.sha256[:12]}")
        facts.append(f"{len(file.not_finite):,} arrays not finite" if file.not_finite else "all numbers finite")
    yield Text(f"    {', '.join(facts)}")
    if file.problem:
        yield Text(f"    {words.visible(file.problem)}", "red")


def _arrays(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """How many arrays there are, of which types, and one of them as an example."""
    types = ", ".join(sorted({str(dtype) for dtype, _ in arrays.values()}))
    name, (_, shape) = next(iter(arrays.items()))
    size = " × ".join(map(str, shape)) or "one number"
    return f"{len(arrays):,} arrays of {types} ({words.visible(name)}: {size})"


def _settings(says: JsonObject) -> str:
    lora = says.get("lora_parameters")
    parts = [
        f"{name} {words.visible(says[name])}" for name in ("fine_tune_type", "num_layers", "iters") if name in says
    ]
    if isinstance(lora, Mapping):
        parts += [
            f"{name} {words.visible(lora[name])}" for name in ("rank", "scale", "dropout", "keys") if name in lora
        ]
    if says.get("model"):
        parts.append(f"model {words.visible(says['model'])}")
    return ", ".join(parts) or "adapter_config.json names none of those that matter here"


def _registry(found: Explanation) -> Iterator[Text]:
    if not found.recorded:
        yield Text("  has no checkpoint of this folder")
    for row in found.recorded:
        state = "with its state" if row["state_file"] and not row["state_pruned_at"] else "weights alone"
        losses = f"validation loss {words.number(row['validation_loss'])}"
        yield Text(f"  iteration {words.count(row['iteration'])}: {row['status']}, {state}, {losses}")
