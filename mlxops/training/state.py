"""What training needs to continue: one dataclass of counters, which a checkpoint stores beside the arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Window:
    """Sums over the iterations since the last report on the grid; those of an objective by its names."""

    values: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    real: int = 0
    positions: int = 0

    def add(self, values: Mapping[str, float], weights: Mapping[str, float]) -> None:
        """Add what a batch gave. A value that is not finite is left out, with its weight."""
        for name, value in values.items():
            if math.isfinite(value):
                self.values[name] = self.values.get(name, 0.0) + value
                self.weights[name] = self.weights.get(name, 0.0) + weights[name]


@dataclass
class Improvement:
    """What the validations on the grid have shown: the lowest loss, and since when nothing is really better."""

    lowest: float | None = None
    lowest_at: int | None = None
    rows: list[float] = field(default_factory=list)
    """The loss of each row, summed over its tokens, at the last real improvement: the next is compared with it."""
    rows_of: str = ""
    """Which rows in which batches those are."""
    since: int = 0
    """Validations after the last real improvement."""


@dataclass
class Counters:
    """Where training is. Every sum is a Python float, which JSON keeps to the last bit."""

    iteration: int = 0
    trained_tokens: int = 0
    updates: int = 0
    window: Window = field(default_factory=Window)
    group_weights: dict[str, float] = field(default_factory=dict)
    """The weight of each term whose gradients are accumulated and not yet applied."""
    gradient_norm: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_due: bool = True
    """A validation belongs here (the first one before the first step) and has not been made yet."""
    validated_at: int | None = None
    """The iteration of `validation_loss`."""
    improvement: Improvement = field(default_factory=Improvement)
    skipped_in_a_row: int = 0
    closed_at: int | None = None
    """The target that was reached and closed at this iteration."""
    closing: dict[str, float | None] = field(default_factory=dict)
    """The metrics that closing added at this iteration, off their grid: a longer run would not have them."""

    def to_json(self) -> str:
        """As text that `from_json` turns back into equal counters."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Counters:
        """The counters that `to_json` wrote, now or before there were some of them."""
        values: dict[str, Any] = json.loads(text)
        window = values["window"]
        if "tokens" in window:  # from before there were objectives: the loss alone, by trained tokens
            loss, tokens, group = window.pop("loss"), window.pop("tokens"), values.pop("group_tokens")
            window |= {"values": {"loss": loss}, "weights": {"loss": tokens}} if tokens else {}
            values["group_weights"] = {"loss": group} if group else {}
        values["window"] = Window(**window)
        values["improvement"] = Improvement(**values.get("improvement", {}))
        return cls(**values)

    def copy(self) -> Counters:
        """Counters that go their own way from here."""
        return Counters.from_json(self.to_json())
