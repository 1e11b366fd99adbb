"""The monitor's frame: a snapshot of a run in, lines that fit the terminal out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from mlxops import hints, times, words
from mlxops.ui.charts import losses
from mlxops.ui.terminal import lines
from mlxops.ui.terminal.tables import shortened
from mlxops.ui.train import pace

if TYPE_CHECKING:
    from mlxops.jobs.train.monitor import MachineLoad, Snapshot
    from mlxops.registry import CheckpointRow, EventView, RunSummaryView

_NO_RUN = "no runs yet: `inv lora --model MODEL --data DATA` starts one"
_KEYS = "q quit   ? help   n next   p previous   space pause   l log   s smooth   + - zoom   o overlay"
_HELP = (
    ("n, right", "the next run, from new to old"),
    ("p, left", "the one before"),
    ("o", "keep this run on the chart while others are shown; again takes it off"),
    ("+, -, 0", "half of the iterations, twice as many, all of them"),
    ("l", "logarithmic scale"),
    ("s", "smoothed and raw, raw, smoothed"),
    ("space", "pause"),
    ("h, ?", "this page"),
    ("q, Ctrl-C", "quit; the training continues"),
)
_LEVELS = (
    ("learning_rate", "learning rate"),
    ("gradient_norm", "gradient"),
    ("tokens_per_second", "tokens/s"),
    ("padding_share", "padding"),
)
_TALLEST = 40
_SHORTEST_NAME = 8
_CHART_LINES = 11  # of the loss chart, before anything else gets more room


@dataclass(frozen=True, kw_only=True)
class View:
    """How it is shown: what the keys change that needs no other rows."""

    log: bool = False
    paused: bool = False
    help: bool = False
    shown: losses.Shown = "both"


WHOLE = View()
"""The view of someone who chose nothing."""


def render(
    snapshot: Snapshot | None,
    machine: MachineLoad | None = None,
    view: View = WHOLE,
    *,
    width: int,
    height: int,
    now: datetime,
    keys: bool = True,
    unicode: bool = True,
    stays: bool = False,
    charts_drawn: dict[Any, list[Text]] | None = None,
) -> Group:
    """One frame of at most `height` lines: the run, its progress, its losses, its rates, its checkpoints and events.

    `snapshot` is what the job `watch` reads, None where there is no run; `machine` what it has seen of the process.
    What matters least gives way first: small curves, events, figures, at last the chart. A frame that `stays` for
    longer than a moment says when it was drawn, and has times of day in the time zone of `now` instead of ages.
    `charts_drawn` keeps the charts of one snapshot, which cost the most, from frame to frame.
    """
    kept = {} if charts_drawn is None else charts_drawn
    clock = _Clock(now, stays)
    foot = [_foot(snapshot, view, width, clock)] if keys else []
    room = height - len(foot)
    if view.help:
        drawn = [lines.line("keys", "bold"), *(lines.line(f"{key:<10} {what}") for key, what in _HELP)]
    elif snapshot is None:
        drawn = [lines.line(hints.for_program(_NO_RUN))]
    else:
        drawn = _body(snapshot, machine, view, width, room, clock, unicode, kept)
    drawn = drawn[: max(room, 0)]
    if keys:
        drawn += [lines.line()] * (room - len(drawn))
    return Group(*drawn, *foot)


def _body(
    snapshot: Snapshot,
    machine: MachineLoad | None,
    view: View,
    width: int,
    room: int,
    clock: _Clock,
    unicode: bool,
    kept: dict[Any, list[Text]],
) -> list[Text]:
    run = snapshot.run
    head = [_title(snapshot, width, clock, unicode), _bar(run, width, clock, unicode)]
    if room >= 14:
        head.insert(1, _what(snapshot))
    if snapshot.gone and room >= 8:
        head.append(lines.line(f"{_listed(snapshot.gone)} gone", "bold yellow"))
    if snapshot.is_alive:
        attempt = snapshot.attempts[-1]
        since = clock.since(attempt["heartbeat_at"])
        said = f"process {attempt['pid']} is alive and trains; it last wrote to the registry {since}"
        head.append(lines.line(said, "bold yellow"))
    left = room - len(head)
    facts = _as_many(_facts(snapshot, machine, clock), width, 2 if room < 18 else 4 if room < 32 else 5)
    left -= len(facts)
    trend = [pace.trend(snapshot.trend, width)] if room >= 12 else []
    left -= len(trend)
    asked: tuple[Any, ...] = ("levels", width, left)
    if asked not in kept:
        kept[asked] = _levels(snapshot, width, left - _CHART_LINES, unicode)
    levels = kept[asked]
    left -= len(levels)
    count = min(left - _CHART_LINES, 4 + room // 12)
    events = _events(snapshot.events[-count:], clock) if count > 0 else []
    chart_lines = left - len(events)
    asked = ("loss", width, chart_lines, view.log, view.shown)
    if asked not in kept:
        height = min(chart_lines, _TALLEST)
        chart = losses.run_chart(snapshot, width, height, unicode=unicode, log=view.log, shown=view.shown)
        kept[asked] = chart if height > 0 else []
    return [*head, *facts, *trend, *kept[asked], *levels, *events]


@dataclass(frozen=True)
class _Clock:
    """The moment of a frame, and whether it stays so long that an age would no longer be true."""

    now: datetime
    stays: bool

    def since(self, text: str | None) -> str:
        """A time of the registry as an age, or as the time of day."""
        return self.at(times.time_of(text)) if self.stays and text is not None else words.age(text, self.now)

    def at(self, moment: datetime) -> str:
        """A moment in this time zone, with its day where that is another."""
        local = moment.astimezone(self.now.tzinfo)
        return f"{local:%H:%M:%S}" if local.date() == self.now.date() else f"{local:%Y-%m-%d %H:%M}"


def _title(snapshot: Snapshot, width: int, clock: _Clock, unicode: bool) -> Text:
    """A name that is too long is cut, so that the status stands on the line."""
    run, attempts = snapshot.run, snapshot.attempts
    heartbeat = attempts[-1]["heartbeat_at"] if attempts and run["status"] == "running" else None
    updated = f"   updated {clock.since(max(filter(None, (heartbeat, run['updated_at']))))}"
    name = words.visible(run["name"])
    status = f"{run['status']}, stopping" if snapshot.is_stopping else run["status"]
    room = max(width - cell_len(f"  {status}{updated}"), _SHORTEST_NAME)
    is_cut = cell_len(name) > room
    if is_cut:
        name = shortened(name, room) if unicode else shortened(name, room - 2).replace("…", "...")
    text = lines.line().append(name, "bold").append("  ")
    text.append(status, lines.style_of_status(run["status"])).append(updated)
    if is_cut:
        return text
    if len(snapshot.runs) > 1:
        text.append(f"   run {snapshot.index + 1:,} of {len(snapshot.runs):,}", "dim")
    if others := snapshot.at_work:
        text.append(f"   also at work: {words.listed([*map(words.visible, others)], 1)}", "green")
    return text


def _what(snapshot: Snapshot) -> Text:
    run, attempts = snapshot.run, snapshot.attempts
    parts = []
    # how it began and ended stands first: a narrow terminal cuts the rest
    if attempts and (last := attempts[-1]):
        if run["status"] != "running" and last["end_reason"]:
            parts.append(f"ended: {last['end_reason']}" + (f", {last['error']}" if last["error"] else ""))
        if last["number"] > 1:
            parts.append(f"attempt {last['number']}, {last['start_kind']} from {words.count(last['from_iteration'])}")
    parts += [run["kind"], f"model {run['model']}", f"data {run['data']}"]
    return lines.line("   ".join(map(words.visible, parts)), "dim")


def _bar(run: RunSummaryView, width: int, clock: _Clock, unicode: bool) -> Text:
    is_at_work, left = run["status"] == "running", run["eta_seconds"]
    ends = clock.stays and is_at_work and left is not None
    return pace.bar(
        run["iteration"],
        run["target_iterations"] if run["is_target_known"] else None,
        width,
        rate=run["iterations_per_second"] if is_at_work else None,
        left=left if is_at_work else None,
        until=clock.at(clock.now + timedelta(seconds=left)) if ends and left is not None else None,
        unicode=unicode,
    )


def _facts(snapshot: Snapshot, machine: MachineLoad | None, clock: _Clock) -> list[tuple[str, str]]:
    """Labels and values, what matters most first."""
    run, latest = snapshot.run, snapshot.latest
    error = latest.get("validation_standard_error")
    spread = "" if error is None else f" ± {words.number(error)}"
    best = words.number(run["best_validation_loss"])
    if run["best_iteration"] is not None:
        best += f" at {words.count(run['best_iteration'])}, {clock.since(snapshot.best_at)}"
    last_step = snapshot.attempts[-1]["step_loss"] if snapshot.attempts else None
    facts = [
        ("train", words.number(last_step if run["train_loss"] is None else run["train_loss"])),
        ("validation", words.number(run["validation_loss"]) + spread),
        ("best", best),
    ]
    # what the process and the machine do now, else what the last report said of them
    measured = [("peak_memory", "peak memory")]
    if machine is not None and machine.process_memory is not None:
        facts.append(("process", f"{words.size(machine.process_memory)}{_percent(machine.process_cpu_percent)}"))
        # what a process holds for a GPU is no part of what the system says that it takes
        if _is_on_a_gpu(snapshot) and latest.get("active_memory") is not None:
            facts.append(("GPU memory", words.metric("active_memory", latest["active_memory"])))
        # a first look has no rates yet
        busy = latest.get("cpu_percent") if machine.cpu_percent is None else machine.cpu_percent
        facts.append(("machine", f"{machine.memory_percent:.0f} % memory{_percent(busy)}"))
    else:
        measured += [("system_memory_percent", "system memory"), ("cpu_percent", "processor")]
    facts += [
        ("checkpoints", _checkpoints(snapshot.checkpoints)),
        ("time", words.duration(run["seconds"])),
        ("tokens", words.count(run["trained_tokens"])),
        ("epoch", words.count(run["epoch"])),
    ]
    facts += [(label, words.metric(name, latest[name])) for name, label in measured if latest.get(name) is not None]
    return [*facts, ("best train", words.number(run["best_train_loss"]))]


def _is_on_a_gpu(snapshot: Snapshot) -> bool:
    return bool(snapshot.attempts) and snapshot.attempts[-1]["device"] == "gpu"


def _events(rows: Sequence[EventView], clock: _Clock) -> list[Text]:
    drawn = lines.events(rows, clock.now)
    if not clock.stays:
        return drawn
    ages = [len(f"{words.age(row['time'], clock.now):>15}") for row in rows]
    return [
        lines.line(f"{clock.since(row['time']):>15}", "dim").append_text(text[age:])
        for row, text, age in zip(rows, drawn, ages, strict=True)
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(words.visible, names[-3:]))
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _as_many(facts: Sequence[tuple[str, str]], width: int, most: int) -> list[Text]:
    """The first facts, as many as fit these lines."""
    for count in range(len(facts), 0, -1):
        drawn = lines.pairs(facts[:count], width)
        if len(drawn) <= most:
            return drawn
    return []


def _percent(processor: float | None) -> str:
    return "" if processor is None else f", {processor:.0f} % cpu"


def _checkpoints(rows: Sequence[CheckpointRow]) -> str:
    whole = [row["iteration"] for row in rows if row["status"] == "whole"]
    spoilt = sum(row["status"] in ("corrupt", "missing") for row in rows)
    text = f"{len(whole)}, last {words.count(max(whole))}" if whole else "none yet"
    return text + (f", {spoilt} damaged" if spoilt else "")


def _levels(snapshot: Snapshot, width: int, room: int, unicode: bool) -> list[Text]:
    """Learning rate, gradient norm, tokens/s and padding: charts where there is room, else a line for two of them."""
    curves = [(name, label, snapshot.curves.get(name, [])) for name, label in _LEVELS]
    latest = snapshot.latest
    curves = [each for each in curves if each[2]]
    if not curves or room < 1:
        return []
    beside = 4 if width >= 120 else 2
    first = snapshot.since or None
    across = -(-len(curves) // beside)
    if room >= 10 * across:
        return _side_by_side(
            [
                [
                    _label(label, words.metric(name, latest.get(name))),
                    *losses.level_chart(rows, width // beside - 2, 7, unicode=unicode, first=first),
                ]
                for name, label, rows in curves
            ],
            beside,
            width // beside,
        )
    # the label and its value take 22 columns
    beside = max(min(width // 38, len(curves)), 1)
    cell = width // beside
    blocks = [
        [
            _label(label, words.metric(name, latest.get(name)), 22).append_text(
                losses.spark(rows, cell - 25, unicode=unicode, first=first)
            )
        ]
        for name, label, rows in curves
    ]
    return _side_by_side(blocks, beside, cell)[:room]


def _label(label: str, value: str, width: int = 0) -> Text:
    text = lines.line().append(label + " ", "dim").append(value)
    text.append(" " * max(width - text.cell_len, 1))
    return text


def _side_by_side(blocks: Sequence[Sequence[Text]], beside: int, width: int) -> list[Text]:
    drawn = []
    for start in range(0, len(blocks), beside):
        row = blocks[start : start + beside]
        for number in range(max(map(len, row))):
            line = lines.line()
            for block in row:
                part = block[number].copy() if number < len(block) else Text()
                part.truncate(width, pad=True)
                line.append_text(part)
            line.rstrip()
            drawn.append(line)
    return drawn


def _foot(snapshot: Snapshot | None, view: View, width: int, clock: _Clock) -> Text:
    states = [(f"drawn at {clock.at(clock.now)}", clock.stays)]
    states += [("paused", view.paused), ("logarithmic", view.log), (view.shown, view.shown != "both")]
    if snapshot is not None:
        states.append((f"last {snapshot.last or 0:,}", snapshot.last is not None))
        states.append(("kept on the chart", snapshot.is_laid_over))
    state = "".join(f"   {word}" for word, holds in states if holds)
    keys = _fitting(_KEYS.split("   "), width - len(state))
    return lines.line().append(keys, "dim").append(state, "bold")


def _fitting(keys: Sequence[str], width: int) -> str:
    """As many keys as there is room for, whole ones."""
    text = ""
    for key in keys:
        longer = f"{text}   {key}" if text else key
        if len(longer) > width:
            break
        text = longer
    return text
