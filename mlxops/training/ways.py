"""The ways in which the parts of a step are computed, by name and version: what of exactness is this code's own.

A way is chosen at a run's first attempt, kept in `runs.config` among the automatic choices, and taken again at every
other. Each checkpoint says by which versions its steps were computed, so that a resume by others is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALED = "learning rate times the size of the weights"
"""LoRA's B begins at zero: its first updates are then a thousandth of the learning rate, and nothing is learnt."""

EXACT = "every position, summed in blocks"
"""On a CPU a softmax over a large vocabulary is otherwise up to 0.0004 nats off."""

TRAINED = "trained positions, summed in blocks"
"""No logits are computed of padding and of what is not trained."""

APART = "apart from the rest"
"""What enters the first trained layer is computed by itself, so that it can be kept from one epoch to the next."""

WAYS: dict[str, dict[str, int]] = {
    "loss": {TRAINED: 1, EXACT: 1, "every position": 1},
    "prefix": {APART: 1, "none": 1},
    "compilation": {"step": 1},
    "loader": {"like length": 1},
    "adafactor": {"learning rate": 1, SCALED: 1},
}
"""For each part the ways there are, the one that a new run takes first, each with its version.

`loss` is where the vocabulary is projected and how its softmax is summed, `prefix` how the layers below the first
trained one are computed, `compilation` what MLX compiles as one, `loader` which rows form a batch and in which order,
`adafactor` what the size of its updates is unless the optimizer's own arguments say otherwise. A version is raised by
every change after which the way gives other bits; a way that is gone is left out.
"""

_BEFORE = {
    "loss": "every position",
    "prefix": "none",
    "compilation": "step",
    "loader": "like length",
    "adafactor": SCALED,
}
"""For each part the way of runs from before it was recorded, in its version 1. It never changes."""


def choose(stored: Mapping[str, Any]) -> dict[str, str]:
    """The way of each part, `stored` being the run's automatic choices: none before its first attempt.

    A run keeps its ways; where one is gone, it takes that of a new run.
    """
    chosen = {}
    for part, ways in WAYS.items():
        usual = next(iter(ways))
        kept = stored.get(part, _BEFORE[part]) if stored else usual
        chosen[part] = kept if kept in ways else usual
    return chosen


def versions(chosen: Mapping[str, str]) -> dict[str, str]:
    """The way of each part with its version, as a checkpoint keeps it."""
    return {part: f"{way}, version {WAYS[part][way]}" for part, way in chosen.items()}


def of_checkpoint(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a checkpoint, complete also where it is from before a part was recorded."""
    return {**{part: f"{way}, version 1" for part, way in _BEFORE.items()}, **environment}
