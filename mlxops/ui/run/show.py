"""What tasks print when they are done: tables, facts and one run in full. Values in, text on the console out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console

from mlxops import words
from mlxops.ui.charts import losses
from mlxops.ui.run import lineage, results
from mlxops.ui.terminal import lines
from mlxops.ui.terminal.console import is_unicode
from mlxops.ui.terminal.tables import heading, table

if TYPE_CHECKING:
    from mlxops.jobs.run.show import RunDetails
    from mlxops.registry import AttemptRow, CheckpointRow, JsonObject, RunSummaryView

_BY_USE = ("iteration", "best", "updated", "validation", "train", "tokens/s", "left", "time", "attempts", "model")


def run(details: RunDetails, console: Console, now: datetime) -> None:
    """One run in full; settings that differ from the defaults are marked."""
    row, attempts = details.run, details.attempts
    console.print(heading(words.visible(row["name"])))
    _print_pairs(_run_facts(row, now), console)
    if len(details.lineage) > 1:
        _section("lineage", console)
        console.print(lineage.tree(details.lineage, row["name"]))
    _section("settings (* not the default)" if details.defaults else "settings", console)
    _print_pairs(_settings(details.config, details.defaults), console)
    if attempts:
        _section("attempts", console)
        table(
            ("number", "start", "from", "to", "when", "ended", "host"),
            [_attempt(each, now) for each in attempts],
            console,
        )
        _section("environment", console)
        _print_pairs(_flat(attempts[-1]["environment"]), console)
    if checkpoints := details.checkpoints:
        _section(f"checkpoints ({len(checkpoints)})", console)
        names = ("iteration", "size", "train", "validation", "best", "status", "when")
        table(names, [_checkpoint(each, now) for each in checkpoints[-8:]], console)
    _section("loss", console)
    chart = losses.loss_chart(details.curve, min(console.width, 100), 14, unicode=is_unicode(console))
    console.print(chart, soft_wrap=True)
    results.results(details.evaluations, details.answers, console, now)
    results.verdicts(details.verdicts, console, now)
    results.benchmarks(details.benchmarks, console, now)
    if details.profile:
        _section("where the time went (`--profile`)", console)
        table(
            ("part", "time", "share", "times", "each"),
            [
                [
                    each["part"],
                    words.duration(each["seconds"]),
                    words.percent(each["share"]),
                    words.count(each["times"]),
                    f"{1000 * each['seconds'] / each['times']:,.1f} ms",
                ]
                for each in details.profile
            ],
            console,
        )
    if details.events:
        _section("last events", console)
        console.print(*lines.events(details.events[-8:], now), sep="\n", soft_wrap=not console.is_terminal)
    typed = attempts[-1]["command"] if attempts else None
    for title, command in (("the same again", typed), ("to train it once more", details.command)):
        if command:
            _section(title, console)
            console.print(words.visible(command), soft_wrap=True)


# one run ------------------------------------------------------------------------------------------------------------


def _run_facts(row: RunSummaryView, now: datetime) -> list[tuple[str, str]]:
    target = row["target_iterations"] if row["is_target_known"] else None
    progress = f"{words.progress(row['iteration'], target, ' of ')} iterations"
    best = words.number(row["best_validation_loss"])
    if row["best_iteration"] is not None:
        best += f" at {words.count(row['best_iteration'])}"
    known = [
        ("status", _status(row, now)),
        ("progress", f"{progress}, {words.percent(row['progress'])}" if row["is_target_known"] else progress),
        ("kind", row["kind"]),
        ("model", words.visible(row["model"])),
        ("data", words.visible(row["data"])),
        ("imported from" if row["imported_from"] else "adapter", words.visible(row["adapter_path"])),
        ("train loss", words.number(row["train_loss"])),
        ("validation loss", f"{words.number(row['validation_loss'])}, best {best}"),
        ("tokens", f"{words.count(row['trained_tokens'])}, {words.count(row['tokens_per_second'])}/s"),
        ("time", words.duration(row["seconds"])),
        ("epoch", words.count(row["epoch"])),
        ("created", words.age(row["created_at"], now)),
    ]
    notes = (("parent", row["parent"]), ("tags", row["tags"]), ("note", row["note"]))
    known += [(name, words.visible(text)) for name, text in notes if text]
    return [*known, ("fingerprint", str(row["fingerprint"])[:16])]


def _status(row: RunSummaryView, now: datetime) -> str:
    ended = [f"ended {words.age(row['ended_at'], now)}"] if row["ended_at"] else []
    return ", ".join([row["status"], *ended, f"updated {words.age(row['updated_at'], now)}"])


def _settings(config: JsonObject, defaults: JsonObject) -> list[tuple[str, str]]:
    """The settings that say something: not the empty ones, unless that is what was chosen."""

    def is_shown(name: str, value: Any) -> bool:
        if name in defaults and defaults[name] != value:
            return True
        # what is no setting (what decides the weights, what was chosen) is in the registry for those who ask
        return (name in defaults or not defaults) and not (value is None or value is False or value in ([], {}))

    return [
        (name, words.setting(name, value) + ("*" if name in defaults and defaults[name] != value else ""))
        for name, value in config.items()
        if is_shown(name, value)
    ]


def _attempt(row: AttemptRow, now: datetime) -> list[str]:
    ended = row["end_reason"] or ("at work" if row["ended_at"] is None else "ended")
    return [
        str(row["number"]),
        row["start_kind"] + (f" ({row['start_note']})" if row["start_note"] else ""),
        words.count(row["from_iteration"]),
        words.count(row["to_iteration"]),
        words.age(row["started_at"], now),
        ended + (f": {row['error']}" if row["error"] else ""),
        row["host"] or words.NOTHING,
    ]


def _checkpoint(row: CheckpointRow, now: datetime) -> list[str]:
    return [
        words.count(row["iteration"]),
        words.size(row["bytes"]),
        words.number(row["train_loss"]),
        words.number(row["validation_loss"]),
        "yes" if row["is_best"] else "",
        row["status"],
        words.age(row["created_at"], now),
    ]


def _flat(values: JsonObject, before: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        elif value is not None:
            found.append((f"{before}{name}", words.setting(name, value)))
    return found


def _section(title: str, console: Console) -> None:
    console.print()
    console.print(heading(title))


def _print_pairs(pairs: Sequence[tuple[str, str]], console: Console) -> None:
    indent = max((cell_len(label) for label, _ in pairs), default=0) + 1
    for line in lines.pairs(pairs, console.width):
        if not console.is_terminal or cell_len(line.plain) <= console.width:
            console.print(line, soft_wrap=True, end="\n")
            continue
        # only one pair on a line can be too long: its value continues below itself
        label, value = line.divide([indent])
        room = max(console.width - indent, 20)
        for part in value.wrap(console, room, overflow="fold", no_wrap=False):
            part.rstrip()
            console.print(label.append_text(part), soft_wrap=True, end="\n")
            label = lines.line(" " * indent)


# tables of any columns ----------------------------------------------------------------------------------------------
