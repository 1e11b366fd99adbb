"""What comparing runs gives: every part of a comparison as `run.compare` draws it and JSON has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlxops.analysis.align import Curve

Loss = Literal["train_loss", "validation_loss"]
LOSSES: tuple[Loss, Loss] = ("train_loss", "validation_loss")


@dataclass(frozen=True, kw_only=True)
class RunLosses:
    """Where a run stands, and its losses with their standard errors."""

    name: str
    status: str
    iteration: int
    target_iterations: int
    trained_tokens: int
    seconds: float | None
    train_loss: float | None
    fingerprint: str
    validation_loss: float | None
    validation_standard_error: float | None
    best_validation_loss: float | None
    best_standard_error: float | None
    best_iteration: int | None


@dataclass(frozen=True, kw_only=True)
class ComparedSetting:
    """A setting, or a fact of the environment: its value in each run, and whether they differ."""

    name: str
    kind: Literal["setting", "environment"]
    values: Sequence[Any]
    differs: bool


@dataclass(frozen=True, kw_only=True)
class LossDifference:
    """How far the final or best validation loss of a run is above the lowest; as in `analysis.significance`."""

    loss: Literal["final", "best"]
    name: str
    difference: float | None
    standard_error: float | None
    exceeds: bool | None


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """The curves of a run, thinned for drawing, by the place that the comparison is by."""

    name: str
    train_loss: Curve
    validation_loss: Curve

    def of(self, loss: Loss) -> Curve:
        """One of both."""
        return self.train_loss if loss == "train_loss" else self.validation_loss


@dataclass(frozen=True, kw_only=True)
class LossesAt:
    """The loss of each run at one place; None where it has none there."""

    at: float
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class ComparedEvaluation:
    """A score of each run on the same data; None where it has none."""

    kind: str
    data: str
    data_sha256: str
    metric: str
    values: Sequence[float | None]
    standard_errors: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class ComparedBenchmark:
    """How fast the adapter of each run read or wrote at one shape of a request; None where that was not timed.

    `host` and `device` are the machine's; speeds of different machines are never side by side.
    """

    host: str
    device: str
    context_tokens: int
    prompt_tokens: int
    generated_tokens: int
    batch_size: int
    metric: str
    values: Sequence[float | None]
    standard_deviations: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class AttemptSpeed:
    """The median of the tokens per second that an attempt reported."""

    attempt: int
    tokens_per_second: float
    reports: int


@dataclass(frozen=True, kw_only=True)
class RunSpeed:
    """The seconds that a run was at work, and the speed of its attempts."""

    name: str
    seconds: float | None
    attempts: Sequence[AttemptSpeed]


@dataclass(frozen=True, kw_only=True)
class RunMemory:
    """The most memory that a run reported, in bytes."""

    name: str
    peak_memory: float | None
    active_memory: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two to eight runs side by side, in the order in which they were named.

    In `places`, train losses are by what the comparison is by, and validation losses at the iterations they were
    measured at.
    """

    runs: Sequence[RunLosses]
    by: Literal["iterations", "tokens", "time"]
    same_settings: bool
    same_losses: bool
    cautions: Sequence[str]
    settings: Sequence[ComparedSetting]
    differences: Sequence[LossDifference]
    curves: Sequence[RunCurves]
    places: Mapping[Loss, Sequence[LossesAt]]
    evaluations: Sequence[ComparedEvaluation]
    benchmarks: Sequence[ComparedBenchmark]
    speed: Sequence[RunSpeed]
    memory: Sequence[RunMemory]
