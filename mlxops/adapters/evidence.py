"""What is known of an adapter folder, as values: the material that `findings.py` reasons about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxops.config import older_names

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights. `iteration` is its name's (None for `adapters.safetensors`), `says` its metadata's.

    `sha256` and `not_finite` are None where the file was not read through.
    """

    name: str
    iteration: int | None
    modified: float = 0.0
    tensors: Tensors = field(default_factory=dict)
    says: int | None = None
    fingerprint: str | None = None
    sha256: str | None = None
    not_finite: tuple[str, ...] | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """A state file of ours, and the hash of the weights that it was written with."""

    name: str
    iteration: int
    fingerprint: str | None = None
    adapter_sha256: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What `adapter_config.json` says of the adapter and its training; None where it says nothing."""

    is_ours: bool = False
    modified: float = 0.0
    fingerprint: str | None = None
    target: int | None = None
    kind: str = "lora"
    rank: int | None = None
    layers: int | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the registry says of a checkpoint."""

    iteration: int
    status: str
    adapter_sha256: str | None = None
    has_state: bool = True


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one folder; `target` is how far training is wanted to go."""

    weights: Sequence[Weights] = ()
    states: Sequence[State] = ()
    shape: Shape | None = None
    recorded: Sequence[Recorded] = ()
    target: int | None = None

    @property
    def numbered(self) -> list[Weights]:
        """The weights with an iteration in their name, oldest iteration first."""
        return sorted(
            (each for each in self.weights if each.iteration is not None), key=lambda each: each.iteration or 0
        )

    @property
    def offered(self) -> Weights | None:
        """The file that programs load."""
        return next((each for each in self.weights if each.iteration is None), None)


def settings_shape(settings: Mapping[str, Any], modified: float) -> Shape:
    """The shape that an `adapter_config.json` of ours, mlx-lm's or the older toolkit's describes."""
    ours = settings.get("mlxops")
    is_ours = isinstance(ours, Mapping)
    lora = settings.get("lora_parameters")
    lora = lora if isinstance(lora, Mapping) else {}
    keys = lora.get("keys")
    target = ours.get("target") if isinstance(ours, Mapping) else settings.get("iters")
    return Shape(
        is_ours=is_ours,
        modified=modified,
        fingerprint=_text(ours.get("fingerprint")) if isinstance(ours, Mapping) else None,
        target=_whole(target),
        kind=_text(older_names.kind_of(settings)) or "lora",
        rank=_whole(lora.get("rank")),
        layers=_whole(older_names.layers_of(settings)),
        keys=tuple(sorted(map(str, keys))) if isinstance(keys, (list, tuple)) else None,
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
