"""`fused.json`: what a fused model's folder says of how it came about, so that the same command knows it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mlxops.models.model_files import write_json

FILE = "fused.json"


@dataclass(frozen=True, kw_only=True)
class FusedModel:
    """A fused model: what it was made of and how. `check` is how it was compared with base and adapter, and the scores.

    `id` is the name that the registry knows the check by; `quantize` is the bits that were asked for.
    """

    id: str
    base: str
    base_identity: str
    adapter_sha256: str
    run: str | None
    iteration: int | None
    de_quantize: bool
    quantize: int | None
    check: Mapping[str, Any] | None = None

    def is_same_work(self, other: FusedModel) -> bool:
        """Whether both are of the same base and adapter in the same way, whatever their ids and checks."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("base_identity", "adapter_sha256", "de_quantize", "quantize")
        )


def read(folder: Path) -> FusedModel | None:
    """What a folder says of itself; None where it is no fused model of this toolkit."""
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return FusedModel(**{each.name: said[each.name] for each in fields(FusedModel)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, fused: FusedModel) -> None:
    """Write it into a folder that is being filled."""
    write_json(folder / FILE, asdict(fused))
