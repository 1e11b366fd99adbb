"""What is wrong with data, by kind and by line, and how large a training on it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from mlxops import words
from mlxops.ui.terminal import lines, tables
from mlxops.ui.terminal.console import is_unicode

if TYPE_CHECKING:
    from mlxops.data.checking import Finding
    from mlxops.jobs.data.check import CheckedData
    from mlxops.jobs.data.figures import TokenFigures

_SHOWN = 5  # rows of one kind
_BAR = 30


def result(checked: CheckedData, console: Console, *, as_json: bool) -> None:
    """The verdict, each kind of finding with its first rows, and the figures."""
    if as_json:
        tables.json_out(checked, console)
        return
    pairs = [(words.visible(name), words.plural(count, "row")) for name, count in checked.rows.items()]
    for role, count in checked.turns.items():
        what = words.plural(count, "row" if role == "text" else "turn")
        pairs.append((role, f"{what}, {checked.characters[role]:,} characters"))
    verdict = f"{words.plural(checked.errors, 'error')}, {words.plural(checked.warnings, 'warning')}"
    tables.facts(f"{words.visible(checked.data)}: {verdict}", pairs, [], console)
    for kind, count in checked.counts.items():
        found = [finding for finding in checked.findings if finding.kind == kind]
        console.print()
        _kind(kind, count, found, console)
    if checked.tokens:
        console.print()
        _tokens(checked.tokens, console)
    for note in checked.notes:
        console.print(words.visible(note), soft_wrap=True)
    if checked.repaired:
        gone = [f"{count:,} for {kind}" for kind, count in checked.removed.items()]
        what = words.listed(gone, 10) or "no row"
        console.print(f"repaired copy in {words.visible(checked.repaired)}; left out: {what}", soft_wrap=True)


def _kind(kind: str, count: int, found: list[Finding], console: Console) -> None:
    console.print(tables.heading(f"{found[0].level}: {kind} ({count:,})"), soft_wrap=True)
    for finding in found[:_SHOWN]:
        console.print(f"  {words.visible(finding.origin)}: {words.visible(finding.message)}", soft_wrap=True)
    if count > _SHOWN:
        console.print(f"  … and {count - _SHOWN:,} more (`--json` has them)", soft_wrap=True)


def _tokens(figures: TokenFigures, console: Console) -> None:
    share = words.percent(figures.trained_tokens / figures.total_tokens if figures.total_tokens else 0)
    pairs = [
        ("tokens", f"{figures.total_tokens:,} within the limit, the longest row {figures.longest:,}"),
        ("trained", f"{figures.trained_tokens:,} ({share}); the others are context"),
        *[
            (role, f"{count:,} ({words.percent(count / figures.total_tokens)})")
            for role, count in figures.by_role.items()
        ],
        ("one epoch", words.plural(figures.batches_per_epoch, "iteration")),
        ("padding", f"{words.percent(figures.padding_share)} of what is computed"),
        ("time per epoch", _time(figures)),
    ]
    tables.facts(f"{words.plural(figures.rows, 'row')} to train", pairs, [], console)
    most = max(figures.lengths.values(), default=1)
    for bound, count in figures.lengths.items():
        bar = lines.bar(count / most, _BAR, unicode=is_unicode(console))
        console.print(f"  up to {bound:>7,} tokens  {bar.plain}  {count:,}", soft_wrap=True)


def _time(figures: TokenFigures) -> str:
    if figures.seconds_per_epoch is None or figures.tokens_per_second is None:
        return "unknown: no run of this model on this machine yet"
    speed = f"{figures.tokens_per_second:,.0f} trained tokens per second"
    return f"{words.duration(figures.seconds_per_epoch)} at {speed}, as in earlier runs"
