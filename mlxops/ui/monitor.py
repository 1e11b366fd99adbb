"""The monitor: one run as a full screen, live or as one frame. It never reads the registry: a callback does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mlxops.ui import charts, lines
from mlxops.ui import format as words
from mlxops.ui.console import is_unicode
from mlxops.ui.keyboard import Keyboard

Snapshot = Mapping[str, Any]

_TICK = 0.2  # seconds in which a resized terminal is noticed
_STALE = 5.0  # seconds after which rows are fetched although nothing was written: a lost run writes nothing
_KEYS = "q quit   n next   p previous   space pause   l log scale"
_NO_RUN = "no runs yet: inv lora --model MODEL --data DATA starts one"


def render(
    snapshot: Snapshot | None,
    *,
    width: int,
    height: int,
    now: datetime,
    log: bool = False,
    paused: bool = False,
    keys: bool = True,
    unicode: bool = True,
) -> Group:
    """One frame of at most `height` lines: the run, its progress, its losses, its rates, its last events.

    `snapshot` holds `run` (a row of run_summary), `curve`, `latest` (value by metric), `events` and `attempts` (oldest
    first), `checkpoints`, `runs` and `index` (which of them this is); None where there is no run.
    """
    foot = [_foot(width, log=log, paused=paused)] if keys else []
    if snapshot is None:
        return Group(lines.line(_NO_RUN), *foot)
    run = snapshot["run"]
    head = [_title(snapshot, now), _what(run), _bar(run, width, unicode), *lines.pairs(_facts(snapshot), width)]
    room = max(height - len(head) - len(foot), 0)
    events = lines.events(snapshot["events"][-5:], now)
    # The chart gets what is left; where that is little, the oldest events make way for it.
    while events and room - len(events) < 10:
        events = events[1:]
    chart_height = room - len(events)
    body: list[Text] = []
    if chart_height > 0:
        chart = charts.loss_chart(
            snapshot["curve"], width, min(chart_height, 40), unicode=unicode, title="loss", log=log
        )
        body.extend(chart.split("\n"))
    drawn = [*head, *body, *events]
    if keys:
        drawn += [lines.line()] * (height - len(foot) - len(drawn))
    return Group(*drawn[: height - len(foot)], *foot)


def once(snapshot: Snapshot | None, console: Console, now: datetime) -> None:
    """One frame, printed."""
    height = console.height if console.is_terminal else 24
    console.print(
        render(snapshot, width=console.width, height=height - 1, now=now, keys=False, unicode=is_unicode(console))
    )


def live(
    fetch: Callable[[], Snapshot | None],
    console: Console,
    *,
    refresh: float,
    changed: Callable[[], int],
    switch: Callable[[int], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """The full screen until `q` or Ctrl-C; not a terminal: one frame.

    Rows are fetched when `changed` gives another number, looked at every `refresh` seconds, and `switch` is told to go
    on by so many runs. However this ends, the terminal is as it was.
    """
    if not console.is_interactive:
        once(fetch(), console, now())
        return
    try:
        with (
            _ended_by_signals(),
            Keyboard() as keyboard,
            Live(console=console, screen=True, auto_refresh=False) as screen,
        ):
            _watch(fetch, console, screen, keyboard, refresh, changed, switch, now)
    except KeyboardInterrupt:
        return


def _watch(
    fetch: Callable[[], Snapshot | None],
    console: Console,
    screen: Live,
    keyboard: Keyboard,
    refresh: float,
    changed: Callable[[], int],
    switch: Callable[[int], None],
    now: Callable[[], datetime],
) -> None:
    log = paused = False
    snapshot: Snapshot | None = None
    version: int | None = None
    fetched_at = drawn_at = float("-inf")
    size = console.size
    key = ""
    while key not in ("q", "Q"):
        if key in _STEPS:
            switch(_STEPS[key])
            version = None
        log ^= key == "l"
        paused ^= key == " "
        moment = time.monotonic()
        is_due = moment - drawn_at >= refresh
        if version is None or (is_due and not paused):
            seen = changed()
            if seen != version or moment - fetched_at >= _STALE:
                snapshot, version, fetched_at = fetch(), seen, moment
        if key or is_due or size != console.size:
            size, drawn_at = console.size, moment
            frame = render(
                snapshot,
                width=size.width,
                height=size.height,
                now=now(),
                log=log,
                paused=paused,
                unicode=is_unicode(console),
            )
            screen.update(frame, refresh=True)
        key = keyboard.read(min(_TICK, refresh))


_STEPS = {"n": 1, "p": -1, "right": 1, "left": -1}


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through the blocks that restore the terminal, with the exit code of the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, _leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _leave(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal_number)


# the parts of a frame -----------------------------------------------------------------------------------------------


def _title(snapshot: Snapshot, now: datetime) -> Text:
    run, attempts = snapshot["run"], snapshot["attempts"]
    text = lines.line().append(words.visible(run["name"]), "bold")
    text.append("  ").append(run["status"], lines.style_of_status(run["status"]))
    heartbeat = attempts[-1].get("heartbeat_at") if attempts and run["status"] == "running" else None
    text.append(f"   updated {words.age(max(filter(None, (heartbeat, run['updated_at']))), now)}")
    if len(snapshot["runs"]) > 1:
        text.append(f"   run {snapshot['index'] + 1} of {len(snapshot['runs'])}", "dim")
    return text


def _what(run: Mapping[str, Any]) -> Text:
    parts = [run["kind"], f"model {run['model']}", f"data {run['data']}"]
    if (run["attempts"] or 0) > 1:
        parts.append(f"attempt {run['attempts']}")
    return lines.line("   ".join(map(words.visible, parts)), "dim")


def _bar(run: Mapping[str, Any], width: int, unicode: bool) -> Text:
    after = f"  {words.count(run['iteration'])}/{words.count(run['target_iterations'])}"
    after += f"  {words.percent(run['progress'])}"
    if run["status"] == "running" and run["eta_seconds"] is not None:
        after += f"  {words.duration(run['eta_seconds'])} left"
    return lines.bar(run["progress"], max(width - len(after), 10), unicode=unicode).append(after)


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    run, latest, checkpoints = snapshot["run"], snapshot["latest"], snapshot["checkpoints"]
    losses = [row["train_loss"] for row in snapshot["curve"][-12:] if row["train_loss"] is not None]
    trend = f" {lines.trend(losses)}" if run["status"] == "running" else ""
    best = words.number(run["best_validation_loss"])
    if run["best_iteration"] is not None:
        best += f" at {words.count(run['best_iteration'])}"
    error = latest.get("validation_standard_error")
    spread = "" if error is None else f" ± {words.number(error)}"
    facts = [
        ("train", words.number(run["train_loss"]) + trend.rstrip()),
        ("validation", words.number(run["validation_loss"]) + spread),
        ("best", best),
        ("tokens/s", words.count(run["tokens_per_second"])),
        ("tokens", words.count(run["trained_tokens"])),
        ("time", words.duration(run["seconds"])),
    ]
    measured = [(label, words.metric(name, latest[name])) for name, label in _MEASURED if latest.get(name) is not None]
    best_train = ("best train", words.number(run["best_train_loss"]))
    return [*facts, *measured, ("epoch", words.count(run["epoch"])), best_train, ("checkpoints", _newest(checkpoints))]


_MEASURED: Sequence[tuple[str, str]] = (
    ("learning_rate", "learning rate"),
    ("gradient_norm", "gradient"),
    ("peak_memory", "memory"),
    ("system_memory_percent", "system memory"),
    ("cpu_percent", "processor"),
)


def _newest(checkpoints: Sequence[Mapping[str, Any]]) -> str:
    if not checkpoints:
        return "none yet"
    return f"{len(checkpoints)}, last {words.count(max(row['iteration'] for row in checkpoints))}"


def _foot(width: int, *, log: bool, paused: bool) -> Text:
    state = "".join(f"   {word}" for word, holds in (("paused", paused), ("logarithmic", log)) if holds)
    text = lines.line().append(_KEYS[: max(width - len(state), 0)], "dim")
    return text.append(state, "bold")
