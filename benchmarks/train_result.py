"""What `train_speed.py` measures: a training of one of the programs, and the file of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SWITCHES: dict[str, tuple[str, ...]] = {
    "loss at every position": ("loss",),
    "no frozen prefix": ("prefix",),
    "neither": ("loss", "prefix"),
}
THEIRS = "mlx_lm.lora"
OURS = "mlxops"
PROFILED = "mlxops --profile"
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A training: its seconds as a whole, the peak in bytes, and the validation loss with its standard error.

    `saved` are the seconds since the command was given, and the loss of the adapter that was saved then, that of the
    model alone first. `parts` are seconds by part of the work where they were measured (`--profile`).
    """

    program: str
    model: str
    layers: int
    epochs: int
    seed: int
    seconds: float
    loss: float
    error: float
    peak: float
    tokens: int
    saved: list[tuple[float, float]]
    parts: dict[str, float]

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What is measured once."""
        return self.program, self.model, self.layers, self.epochs, self.seed


def read(file: Path) -> list[Result]:
    """What was measured before."""
    if not file.exists():
        return []
    return [
        Result(**{"saved": [], "parts": {}, **json.loads(line)})
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
