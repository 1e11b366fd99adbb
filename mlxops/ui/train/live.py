"""What a person sees while a run trains: events in, a live screen or plain lines out."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mlxops import events, words
from mlxops.analysis.pace import Pace
from mlxops.analysis.trend import WINDOW, Trend, trend
from mlxops.hints import program
from mlxops.ui.charts import losses as charts
from mlxops.ui.terminal import lines
from mlxops.ui.terminal.console import is_unicode
from mlxops.ui.train import pace

if TYPE_CHECKING:
    from mlxops.registry import LossPoint

_REFRESH = 2.0  # a second: each drawing takes the interpreter from the training for about two milliseconds
_CHART_SECONDS = 2.0
_POINTS = 2000
_NOTICES = 3
_NOTICE_LINES = 6
_HEIGHT_FOR_TREND = 20


class Screen(Protocol):
    """What `screen` gives: `show` takes everything that training says."""

    def show(self, event: events.Event) -> None: ...


@contextmanager
def screen(
    console: Console,
    *,
    run_name: str,
    target: int,
    iteration: int,
    lines: Sequence[str],
    curve: Iterable[LossPoint] = (),
    recent: Sequence[tuple[int, float]] = (),
    seconds: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Screen]:
    """The screen of one attempt; `lines` are said first and stay.

    Of the attempts before, `curve` are the losses, `recent` the reports that a trend is taken from, and `seconds` is
    their time at work.

    On a terminal a few lines are redrawn in place and their last state stays; else each event that matters is a line.
    Whatever ends the block, the cursor is back.
    """
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)
    if not console.is_interactive:
        yield _PlainLines(console, Pace(iteration, target, clock), curve)
        return
    state = _State(run_name, Pace(iteration, target, clock), curve, recent, seconds)
    drawing = _Drawing(state, console)
    with Live(
        console=console,
        get_renderable=drawing.draw,
        refresh_per_second=_REFRESH,
        # What is printed to a pipe must arrive there; on the terminal it goes above the screen.
        redirect_stdout=sys.stdout.isatty(),
    ):
        yield state


def restore() -> None:
    """Shows the cursor again, from any thread and without a lock: the last thing before `os._exit`."""
    try:
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\r\n")
    except OSError:  # the terminal is gone, and its cursor with it
        return


class _PlainLines:
    """One line for each event that matters."""

    def __init__(
        self,
        console: Console,
        pace: Pace,
        curve: Iterable[LossPoint],
    ) -> None:
        self._console = console
        self._pace = pace
        self._best = _best(curve)

    def show(self, event: events.Event) -> None:
        self._pace.hear(event)
        match event:
            case events.Report():
                self._print(event.iteration, _report_parts(event, self._pace.left))
            case events.Validation():
                if self._best is None or event.loss < self._best[0]:
                    self._best = (event.loss, event.iteration)
                parts = [f"validation loss {words.number(event.loss)} ± {words.number(event.standard_error)}"]
                parts.append(f"best {words.number(self._best[0])} at {self._best[1]}")
                if event.without_improvement:
                    count = event.without_improvement
                    parts.append(f"{count} validation{'' if count == 1 else 's'} without improvement")
                self._print(event.iteration, parts)
            case events.Saved():
                self._print(event.iteration, [f"saved {event.adapter_file}", words.size(event.bytes)])
            case events.Skipped():
                self._print(event.iteration, [_skipped(event)])
            case events.Stopped():
                self._print(event.iteration, [_stopped(event)])
            case events.Notice():
                self._console.print(_noticed(event), soft_wrap=True)

    def _print(self, iteration: int, parts: Sequence[str]) -> None:
        self._console.print("  ".join([f"iteration {iteration}/{self._pace.estimate.target}", *parts]), soft_wrap=True)


class _State:
    """What training said last. The training thread writes it, the drawing thread reads it."""

    def __init__(
        self,
        run_name: str,
        pace: Pace,
        curve: Iterable[LossPoint],
        recent: Sequence[tuple[int, float]] = (),
        seconds: float = 0.0,
    ) -> None:
        self.run_name = run_name
        self.pace = pace
        self.began = pace.clock() - seconds
        self.curve = list(curve)
        self.reports = deque(recent, maxlen=WINDOW)
        self._trend: tuple[int, Trend | None] = (-1, None)
        self.version = 0
        self.epoch: int | None = None
        self.metrics: dict[str, float] = {}
        self.validation: events.Validation | None = None
        self.best = _best(self.curve)
        self.saved: events.Saved | None = None
        self.doing = "starting"
        self.is_stopping = self.is_over = False
        self.notices: list[tuple[str, str]] = []
        self.said = 0

    def show(self, event: events.Event) -> None:
        self.pace.hear(event)
        match event:
            case events.Step():
                self.doing = "training"
            case events.Report():
                self.epoch, self.metrics = event.epoch, event.metrics
                loss = event.metrics.get("train_loss", math.nan)
                if math.isfinite(loss):
                    self.reports.append((event.iteration, loss))
                self._add(_point(event.iteration, train_loss=loss))
            case events.Started():
                self.doing = "first step"
            case events.Validating():
                self.doing = f"validating {event.done} of {event.total}"
            case events.Validation():
                self.validation = event
                self.doing = "first step" if self.pace.left is None else "training"
                if self.best is None or event.loss < self.best[0]:
                    self.best = (event.loss, event.iteration)
                self._add(_point(event.iteration, validation_loss=event.loss))
            case events.Saved():
                self.saved = event
            case events.Skipped():
                self._say("warning", f"iteration {words.count(event.iteration)} {_skipped(event)}")
            case events.Notice(kind="stopping"):
                self.is_stopping = True
                self._say(event.level, event.message)
            case events.Notice():
                self._say(event.level, _noticed(event))
            case events.Stopped():
                self.doing, self.is_stopping, self.is_over = _stopped(event), False, True

    @property
    def trend(self) -> Trend | None:
        """The trend of the newest reports, computed where it is drawn: training does not wait for it."""
        version = self.version
        if self._trend[0] != version:
            self._trend = version, trend(list(self.reports))
        return self._trend[1]

    def _add(self, point: LossPoint) -> None:
        self.curve.append(point)
        if len(self.curve) > 2 * _POINTS:
            self.curve = _thinned(self.curve)
        self.version += 1

    def _say(self, level: str, message: str) -> None:
        self.said += 1
        self.notices = [*self.notices, (level, words.visible(message))][-_NOTICES:]


class _Drawing:
    """The state as lines that fit the terminal; the chart is drawn again only for new losses and not too often."""

    def __init__(self, state: _State, console: Console) -> None:
        self._state = state
        self._console = console
        self._unicode = is_unicode(console)
        self._chart: list[Text] = []
        self._chart_of: tuple[int, int, int] | None = None
        self._chart_at = -math.inf

    def draw(self) -> Group:
        state, width, height = self._state, self._console.width, self._console.height
        head = lines.line().append(words.visible(state.run_name), "bold").append("  ")
        if state.is_stopping:
            head.append("stopping: ", "bold yellow")
        head.append(state.doing)
        notices = [
            line
            for level, message in state.notices
            for line in _notice_line(level, message).wrap(self._console, width, no_wrap=False)
        ][-_NOTICE_LINES:]
        if state.said > len(state.notices):
            notices.append(
                lines.line(
                    f"{state.said - len(state.notices):,} earlier: `{program()} run.show {quote(state.run_name)}`",
                    "dim",
                )
            )
        drawn = [head, self._bar(width), *lines.pairs(_facts(state), width)]
        if height >= _HEIGHT_FOR_TREND:
            drawn.append(pace.trend(state.trend, width))
        room = min(height - len(drawn) - len(notices) - 2, height // 2, 14)
        if room >= 8 and state.curve:
            drawn.extend(self._loss(width, room))
        return Group(*[*drawn, *notices][: height - 1])

    def _bar(self, width: int) -> Text:
        known = self._state.pace.estimate
        return pace.bar(
            known.iteration,
            known.target,
            width,
            rate=known.iterations_per_second,
            left=None if self._state.is_over else self._state.pace.left,
            unicode=self._unicode,
        )

    def _loss(self, width: int, height: int) -> list[Text]:
        wanted = (self._state.version, width, height)
        is_resized = self._chart_of is None or self._chart_of[1:] != wanted[1:]
        # the last frame stays on the screen
        is_time = self._state.is_over or self._state.pace.clock() - self._chart_at >= _CHART_SECONDS
        if is_resized or (wanted != self._chart_of and is_time):
            curve = list(self._state.curve)
            chart = charts.loss_chart(curve, width, height, unicode=self._unicode, title="loss")
            self._chart = list(chart.split("\n"))
            self._chart_of, self._chart_at = wanted, self._state.pace.clock()
        return self._chart


def _best(curve: Iterable[LossPoint]) -> tuple[float, int] | None:
    """The lowest validation loss so far and its iteration."""
    validated = [(row["validation_loss"], row["iteration"]) for row in curve]
    return min(((loss, iteration) for loss, iteration in validated if loss is not None), default=None)


def _facts(state: _State) -> list[tuple[str, str]]:
    metrics, validation, known = state.metrics, state.validation, state.pace.estimate
    validated = best = words.NOTHING
    if validation is not None:
        validated = f"{words.number(validation.loss)} ± {words.number(validation.standard_error)}"
    if state.best is not None:
        best = f"{words.number(state.best[0])} at {words.count(state.best[1])}"
    return [
        ("train", words.number(metrics.get("train_loss", known.step_loss))),
        ("validation", validated),
        ("best", best),
        ("tokens/s", words.metric("tokens_per_second", metrics.get("tokens_per_second", known.tokens_per_second))),
        ("tokens", words.metric("trained_tokens", metrics.get("trained_tokens"))),
        ("time", words.duration(state.pace.clock() - state.began)),
        ("learning rate", words.metric("learning_rate", metrics.get("learning_rate"))),
        ("gradient", words.metric("gradient_norm", metrics.get("gradient_norm"))),
        ("memory", words.metric("peak_memory", metrics.get("peak_memory"))),
        ("epoch", words.count(state.epoch)),
        ("saved", words.NOTHING if state.saved is None else f"at {words.count(state.saved.iteration)}"),
    ]


def _point(iteration: float, *, train_loss: float | None = None, validation_loss: float | None = None) -> LossPoint:
    return {
        "iteration": int(iteration),
        "train_loss": train_loss,
        "validation_loss": validation_loss,
        "validation_standard_error": None,
    }


def _thinned(curve: Sequence[LossPoint]) -> list[LossPoint]:
    """The curve with fewer points: a run of a million reports must not slow its own screen down."""
    train = [(row["iteration"], loss) for row in curve if (loss := row["train_loss"]) is not None]
    validation = [(row["iteration"], loss) for row in curve if (loss := row["validation_loss"]) is not None]
    most = _POINTS // 4
    kept = [_point(iteration, train_loss=loss) for iteration, loss in charts.thin(train, most)]
    kept += [_point(iteration, validation_loss=loss) for iteration, loss in charts.thin(validation, most)]
    return sorted(kept, key=lambda row: row["iteration"])


def _report_parts(event: events.Report, left: float | None) -> list[str]:
    metrics = event.metrics
    parts = [f"loss {words.number(metrics.get('train_loss'))}"]
    if "tokens_per_second" in metrics:
        parts.append(f"tokens/s {metrics['tokens_per_second']:.0f}")
    for name in ("learning_rate", "gradient_norm"):
        if name in metrics:
            parts.append(f"{name.replace('_', ' ')} {words.metric(name, metrics[name])}")
    if "peak_memory" in metrics:
        parts.append(f"memory {words.size(metrics['peak_memory'])}")
    return parts if left is None else [*parts, f"left {words.duration(left)}"]


def _skipped(event: events.Skipped) -> str:
    rows = words.listed(event.origins, 3)
    return f"skipped: {event.reason}" + (f" ({rows})" if rows else "")


def _stopped(event: events.Stopped) -> str:
    if event.reason == "signal":
        return f"stopped by {event.signal_name}"
    return {
        "finished": "finished",
        "early stopping": "stopped early",
        "diverged": "stopped: it diverged",
    }[event.reason]


def _noticed(event: events.Notice) -> str:
    return event.message if event.level == "info" else f"{event.level}: {event.message}"


def _notice_line(level: str, message: str) -> Text:
    return lines.line(message, {"info": "", "warning": "yellow", "error": "red"}[level])
