"""A full screen that is drawn again and again: what asks, keys, signals and its end are the same for every one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from mlxops.ui.terminal.background import Asker
from mlxops.ui.terminal.keyboard import Keyboard
from mlxops.ui.terminal.leaving import NO_TERMINAL, Signals

_TICK = 0.5  # seconds in which a resized terminal is noticed
_QUIT = ("q", "Q")


class Source(Protocol):
    """Where what is shown comes from."""

    def stand_behind(self) -> None:
        """Let the training go first on the processors."""

    def close(self) -> None:
        """Nothing more will be asked."""


@dataclass(frozen=True, kw_only=True)
class LiveScreen:
    """An open screen. `ask` answers a question in a thread of its own, so that `q` and Ctrl-C leave meanwhile."""

    console: Console
    screen: Live
    keyboard: Keyboard
    signals: Signals
    ask: Callable[[Callable[[], Any]], Any]

    def watch(self, refresh: float, show: Callable[[float, str, bool], None]) -> None:
        """Call `show` every `refresh` seconds, at a key, and where the terminal has another size, until `q`.

        It is told the time, the key if there is one, and whether the seconds are over: a key does not put them off.
        """
        looked_at, size, key = float("-inf"), self.console.size, ""
        while key not in _QUIT:
            moment = time.monotonic()
            is_due = moment - looked_at >= refresh
            if is_due or key or size != self.console.size:
                size = self.console.size
                show(moment, key, is_due)
                looked_at = moment if is_due else looked_at
            key = self.keyboard.read(min(_TICK, refresh))
            self.signals.check()


@contextmanager
def opened(source: Source, console: Console) -> Iterator[LiveScreen]:
    """A full screen until the block ends, or `q` or Ctrl-C ends it. However that is, the terminal is as it was."""
    source.stand_behind()
    asker = Asker()  # after the priority, which a thread has from the one that begins it
    try:
        with (
            Signals().handled() as signals,
            Keyboard() as keyboard,
            Live(console=console, screen=True, auto_refresh=False) as screen,
        ):

            def leave_where_asked() -> None:
                signals.check()
                if keyboard.has(*_QUIT):
                    raise KeyboardInterrupt

            yield LiveScreen(
                console=console,
                screen=screen,
                keyboard=keyboard,
                signals=signals,
                ask=partial(asker.ask, meanwhile=leave_where_asked),
            )
    except KeyboardInterrupt:
        return
    except OSError as error:
        if error.errno not in NO_TERMINAL:
            raise
        raise SystemExit(128 + signal.SIGHUP) from error
    finally:
        asker.close(source.close)
