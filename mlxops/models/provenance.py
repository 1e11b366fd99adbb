"""What a model's folder says of how this toolkit made it, so that the same command knows it again.

`fused.json` stands in a model of base and adapter, `converted.json` in one of another model alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mlxops.models.model_files import write_json

M = TypeVar("M", bound="FusedModel | ConvertedModel")


@dataclass(frozen=True, kw_only=True)
class FusedModel:
    """A fused model: what it was made of and how. `check` is how it was compared with base and adapter, and the scores.

    `id` is the name that the registry knows the check by; `quantize` is the bits that were asked for.
    """

    FILE: ClassVar = "fused.json"

    id: str
    base: str
    base_identity: str
    adapter_sha256: str
    run: str | None
    iteration: int | None
    de_quantize: bool
    quantize: int | None
    check: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """What tells this making of a model from any other."""
        return self.id

    def is_same_work(self, other: FusedModel) -> bool:
        """Whether both are of the same base and adapter in the same way, whatever their ids and checks."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("base_identity", "adapter_sha256", "de_quantize", "quantize")
        )


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A converted model: the model that it was made of, and what was asked for."""

    FILE: ClassVar = "converted.json"

    source: str
    source_identity: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What tells this conversion from those of other models and with other settings."""
        said = json.dumps([self.source_identity, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def is_same_work(self, other: ConvertedModel) -> bool:
        """Whether both are of the same model in the same way, wherever that model stood."""
        return self.source_identity == other.source_identity and dict(self.settings) == dict(other.settings)


def read(folder: Path, of: type[M]) -> M | None:
    """What a folder says of itself; None where this toolkit made no such model there."""
    try:
        said = json.loads((folder / of.FILE).read_text(encoding="utf-8"))
        return of(**{each.name: said[each.name] for each in fields(of)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, made: FusedModel | ConvertedModel) -> None:
    """Write it into a folder that is being filled."""
    write_json(folder / made.FILE, asdict(made))
