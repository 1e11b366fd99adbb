"""What training says while it works. The loop emits these and knows neither the database nor the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Started:
    """The first step of this attempt is next; it validates and saves every so many iterations, None: never."""

    iteration: int
    target: int
    batches_per_epoch: int
    trained_tokens: int
    validates_every: int | None = None
    saves_every: int | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One iteration is done. `loss` is that of its batch alone, None where it was not finite or nothing was trained."""

    iteration: int
    loss: float | None
    tokens: int
    seconds: float


OF_THE_CLOCK = (
    "tokens_per_second", "iterations_per_second", "peak_memory", "active_memory", "system_memory_percent",
    "cpu_percent", "prefix_hits", "prefix_bytes", "prefix_seconds_saved",
)  # fmt: skip
"""Metrics that no two trainings have alike: the rest is a function of model, rows and settings alone."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The metrics of a window of iterations, by the names of the table `metric_names`.

    `closing` marks the report of a target off the reporting grid: a longer run would not have it.
    """

    iteration: int
    epoch: int
    metrics: dict[str, float]
    closing: bool = False


@dataclass(frozen=True, kw_only=True)
class Validating:
    """A validation is under way: `done` of `total` batches."""

    iteration: int
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The loss on the validation rows and its standard error, and the objective's metrics as `validation_NAME`.

    In supervised training the loss is the mean over the trained tokens and the standard error one over rows.
    `without_improvement` counts the validations since the last real improvement, this one with them. `closing` marks
    the validation of a target off the grid: a longer run would not have it.
    """

    iteration: int
    loss: float
    standard_error: float
    rows: int
    tokens: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    without_improvement: int = 0
    closing: bool = False


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is whole on disk. File names are relative to the run's folder, sizes in bytes."""

    iteration: int
    adapter_file: str
    state_file: str
    bytes: int
    adapter_sha256: str
    state_sha256: str
    train_loss: float | None
    validation_loss: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A batch was left out: loss or gradient was not finite, or the gradient zero. `origins` names its rows."""

    iteration: int
    reason: str
    origins: tuple[str, ...]
    in_a_row: int


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """This attempt is over. Nothing follows."""

    iteration: int
    reason: Literal["finished", "early stopping", "signal", "diverged"]
    signal_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something worth a line in the run's history that is none of the above."""

    kind: str
    message: str
    iteration: int | None = None
    level: Literal["info", "warning", "error"] = "info"
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """Where the time of this attempt went so far: seconds, and how many times, by part of the work."""

    parts: dict[str, tuple[float, int]]


Event = Started | Step | Report | Validating | Validation | Saved | Skipped | Stopped | Notice | Profiled
Listener = Callable[[Event], None]
