"""Where a run begins that does not begin with fresh weights: at another run's checkpoint, or at another's adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

SHAPE = ("fine_tune_type", "num_layers", "lora_rank", "lora_keys")
"""The settings that say which arrays an adapter has, and of which size."""

_DECIDING = ("start_iteration", "start_adapter_sha256", "start_state_sha256")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The weights a run begins with, and the iteration from which it counts on.

    `state_sha256` is that of the state file whose optimizer state is kept, None where it starts fresh. `run` is the
    parent of a branch, and `asked` its `--from` as typed. `folder` is as the registry stores it.
    """

    kind: Literal["branch", "warm"]
    iteration: int
    folder: str
    file: str
    adapter_sha256: str
    state_sha256: str | None = None
    trained_tokens: int = 0
    run: str | None = None
    asked: str | None = None
    note: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What of it decides the weights, and so belongs to the run's fingerprint."""
        return dict(zip(_DECIDING, (self.iteration, self.adapter_sha256, self.state_sha256), strict=True))

    @property
    def kind_in_words(self) -> str:
        """What a run that begins so is."""
        return "a branch" if self.kind == "branch" else "with an adapter taken over"

    def to_config(self) -> dict[str, Any]:
        """As `runs.config` keeps it."""
        return asdict(self)


def origin_of(config: Mapping[str, Any]) -> Origin | None:
    """The origin of a run with this `runs.config`, None where it began with fresh weights."""
    stored = config.get("origin")
    return Origin(**stored) if stored else None


def without_origin(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The deciding settings that a person gives: all but where the run begins."""
    return {name: value for name, value in settings.items() if name not in _DECIDING}
