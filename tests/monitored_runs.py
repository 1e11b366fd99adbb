"""Runs as the monitor is told of them, and a source that gives one of them."""

import io
from datetime import UTC, datetime

from rich.console import Console
from summary_rows import run_row, untouched_run_row

from mlxops.analysis.trend import Trend
from mlxops.jobs.train.monitor import MachineLoad, Snapshot
from mlxops.ui.train import monitor

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def ranges(*points):
    """A curve of (iteration, value), a range for each."""
    return [
        {
            "iteration": iteration,
            "mean": value,
            "low": value,
            "low_iteration": iteration,
            "high": value,
            "high_iteration": iteration,
            "finite": 0 if value is None else 1,
            "count": 1,
        }
        for iteration, value in points
    ]


def attempt(number=1, begun=0, **values):
    return {
        "number": number,
        "start_kind": "exact" if number > 1 else "fresh",
        "from_iteration": begun,
        "heartbeat_at": "2026-11-22T11:59:57.000Z",
        "ended_at": None,
        "end_reason": None,
        "error": None,
        "step_loss": None,
        "device": "cpu",
        **values,
    }


def event(iteration, level="info", message="saved"):
    return {"time": "2026-11-22T11:59:00.000Z", "level": level, "message": message, "iteration": iteration}


def slope(value, lowest, highest):
    return Trend(slope=value, lowest=lowest, highest=highest, points=40, first_iteration=1, last_iteration=400)


def snapshot(run=None, points=40, happenings=3, **values):
    row = run or run_row()
    train = ranges(*((10 * index, 4 - index / points) for index in range(1, points + 1)))
    known = {
        "run": row,
        "runs": [row["name"], "brave-otter"],
        "index": 0,
        "at_work": [],
        "latest": {"learning_rate": 1e-5, "gradient_norm": 1.25, "peak_memory": 3.2e9},
        "attempts": [attempt()] if points else [],
        "checkpoints": [{"iteration": 300, "status": "whole"}] if points else [],
        "gone": [],
        "warnings": [],
        "events": [event(index) for index in range(happenings)],
        "best_at": "2026-11-22T11:58:00.000Z" if points else None,
        "trend": slope(-0.0025, -0.003, -0.001) if points else None,
        "since": 0,
        "last": None,
        "curves": {"train_loss": train, "learning_rate": ranges((10, 1e-5), (400, 1e-5))} if points else {},
        "is_laid_over": False,
        "place": 0,
        "others": [],
    }
    return Snapshot(**{**known, **values})


def nothing_yet():
    return snapshot(run=untouched_run_row(), points=0, happenings=0, latest={})


MACHINE = MachineLoad(
    process_memory=1.5e9,
    process_cpu_percent=143.0,
    cpu_percent=57.0,
    processors=2,
    memory_percent=61.0,
    memory=8e9,
    monitors=1,
)


class Rows:
    """A source of one snapshot that keeps what was asked of it; `keys` are typed at the first question."""

    def __init__(self, shot, keyboard=None, keys=b""):
        self.shot, self.keyboard, self.keys, self.asked = shot, keyboard, keys, []

    def state(self):
        if self.keys:
            self.keyboard.write(self.keys)
            self.keys = b""
        self.asked.append("rows")
        return self.shot

    def changed(self):
        return (), 1

    def machine(self):
        return MACHINE

    def stand_behind(self):
        self.asked.append("behind")

    def switch(self, steps):
        self.asked.append(("switch", steps))

    def overlay(self):
        self.asked.append("overlay")

    def zoom(self, steps):
        self.asked.append(("zoom", steps))

    def close(self):
        self.is_closed = True


def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)


def watch(rows, console=None):
    monitor.live(rows, console or screen(), refresh=60, now=lambda: NOW)
    return rows.asked
