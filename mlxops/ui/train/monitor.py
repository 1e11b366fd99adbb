"""The monitor: a full screen that follows a run, or one frame of it. It never reads the registry: its source does."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.live import Live

from mlxops.ui.charts.losses import Shown
from mlxops.ui.terminal import live_screen
from mlxops.ui.terminal.console import is_unicode
from mlxops.ui.train.dashboard import View, render

if TYPE_CHECKING:
    from mlxops.jobs.train.monitor import MachineLoad, Snapshot

__all__ = ["Source", "View", "live", "once", "render"]

_STALE = 30.0  # seconds after which rows are fetched although nothing was written
_FRESH = 2.0  # seconds up to which an age on the screen may count as one
_BUSY = 80.0  # % of all processors, from where on drawing takes them from the training
_SHARE = 0.002  # of all processors, what the drawing of all monitors together takes then; looking comes on top
_SAMPLE = 5.0  # seconds after which it is seen that they are no longer busy: that costs more than asking for news
_STEPS = {"n": 1, "p": -1, "right": 1, "left": -1}
_ZOOM = {"+": 1, "=": 1, "-": -1, "_": -1, "0": 0}
_NEXT: Mapping[Shown, Shown] = {"both": "raw", "raw": "smoothed", "smoothed": "both"}


class Source(live_screen.Source, Protocol):
    """Where the rows come from, and what the keys ask of it."""

    def state(self) -> Snapshot | None:
        """The run as it is now."""

    def changed(self) -> tuple[Hashable, Hashable]:
        """Which attempts are at work, and another value when something was written."""

    def machine(self) -> MachineLoad:
        """What the run's process and the machine take now, and how many monitors are open."""

    def switch(self, steps: int) -> None:
        """Move by so many runs."""

    def overlay(self) -> None:
        """Keep the run on the chart, or no longer."""

    def zoom(self, steps: int) -> None:
        """Fewer iterations, more, or with 0 all."""


def once(source: Source, console: Console, now: datetime) -> None:
    """One frame, printed."""
    height = console.height if console.is_terminal else 40
    state = source.state()
    frame = render(
        state,
        source.machine(),
        width=console.width,
        height=height - 1,
        now=now,
        keys=False,
        unicode=is_unicode(console),
    )
    console.print(frame)


def live(
    source: Source,
    console: Console,
    *,
    refresh: float,
    now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
) -> None:
    """The full screen until `q` or Ctrl-C; not a terminal: one frame.

    Every `refresh` seconds the source is asked whether something changed, and only then for its rows; however long it
    takes to answer, `q` and Ctrl-C leave. Where the processors are busy, what is merely new is drawn less often, so
    that all monitors together take a five-hundredth of them, and with times of day, which stay true; a key, and a run
    that begins or ends, are drawn at once. However this ends, the terminal is as it was.
    """
    if not console.is_interactive:
        once(source, console, now())
        return
    with live_screen.opened(source, console) as opened:
        shown = _Screen(source, opened.ask, console, opened.screen, now, refresh > _FRESH)
        size = console.size

        def show(moment: float, key: str, _: bool) -> None:
            nonlocal size
            is_asked = bool(key) or size != console.size
            size = console.size
            if key:
                shown.press(key)
            shown.refresh(moment, is_asked=is_asked)

        opened.watch(refresh, show)


@dataclass
class _Screen:
    """What is on the screen, and since when."""

    source: Source
    ask: Callable[[Callable[[], Any]], Any]
    console: Console
    screen: Live
    now: Callable[[], datetime]
    is_slow: bool  # it is looked at so seldom that an age would not stay true
    view: View = field(default_factory=View)
    snapshot: Snapshot | None = None
    seen: tuple[Hashable, Hashable] | None = None
    machine: MachineLoad | None = None
    is_new: bool = True  # nothing was fetched yet, or another run is asked for
    fetched_at: float = float("-inf")
    sampled_at: float = float("-inf")
    rests_until: float = float("-inf")
    drawn: dict[Any, Any] = field(default_factory=dict)

    def press(self, key: str) -> None:
        view, source = self.view, self.source
        self.view = replace(view, help=not view.help and key in ("h", "?"))
        if view.help:
            return
        if key in _STEPS:
            source.switch(_STEPS[key])
        elif key in _ZOOM:
            source.zoom(_ZOOM[key])
        elif key == "o":
            source.overlay()
        elif key == "l":
            self.view = replace(view, log=not view.log)
        elif key == "s":
            self.view = replace(view, shown=_NEXT[view.shown])
        elif key == " ":
            self.view = replace(view, paused=not view.paused)
        self.is_new |= key in _STEPS or key in _ZOOM or key == "o"

    def refresh(self, moment: float, *, is_asked: bool) -> None:
        """Draw what there is now: at once where asked or where a run begins or ends, else when it may."""
        began = time.process_time()
        seen = self.ask(self.source.changed)
        is_urgent = is_asked or self.is_new or self.seen is None or seen[0] != self.seen[0]
        if not is_urgent and moment < min(self.rests_until, self.sampled_at + _SAMPLE):
            return
        self.machine, self.sampled_at = self.ask(self.source.machine), moment
        if is_urgent or not self._is_busy() or moment >= self.rests_until:
            self._fetch(seen, moment)
            self._draw()
            spent = time.process_time() - began
            self.rests_until = moment + self._rest(spent) if self._is_busy() else moment

    def _fetch(self, seen: tuple[Hashable, Hashable], moment: float) -> None:
        """Take the rows again where there may be others; paused, only where a key asked for others."""
        if self.view.paused and not self.is_new:
            return
        if self.is_new or seen != self.seen or moment - self.fetched_at >= _STALE:
            self.snapshot, self.seen, self.fetched_at = self.ask(self.source.state), seen, moment
            self.is_new = False
            self.drawn.clear()

    def _is_busy(self) -> bool:
        return self.machine is not None and (self.machine.cpu_percent or 0.0) >= _BUSY

    def _rest(self, spent: float) -> float:
        """Seconds of a rest in which all monitors that draw so stay within their share of the processors."""
        if self.machine is None:
            return 0.0
        return spent * self.machine.monitors / (_SHARE * (self.machine.processors or 1))

    def _draw(self) -> None:
        size = self.console.size
        frame = render(
            self.snapshot,
            self.machine,
            self.view,
            width=size.width,
            height=size.height,
            now=self.now(),
            unicode=is_unicode(self.console),
            stays=self.is_slow or self._is_busy(),
            charts_drawn=self.drawn,
        )
        self.screen.update(frame, refresh=True)
