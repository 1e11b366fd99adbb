"""`adapter_config.json`: what mlx-lm needs to load an adapter, and the run that made it beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from mlxops import files, layout
from mlxops.config import LoraConfig
from mlxops.errors import Failed


class DescribedRun(TypedDict):
    """A run as its folder describes it: all that a registry needs to take it from there."""

    name: str
    fingerprint: str
    model: str
    model_identity: str
    data: str
    data_identity: str
    target: int
    config: Mapping[str, Any]


def write(folder: Path, config: LoraConfig, run: DescribedRun) -> None:
    """Write `adapter_config.json`: what mlx-lm needs to load the adapter, and our run beside it."""
    settings: dict[str, Any] = {
        "fine_tune_type": config.fine_tune_type,
        "model": run["model"],
        "num_layers": config.num_layers,
        "lora_parameters": {
            "rank": config.lora_rank,
            "scale": config.lora_scale,
            "dropout": config.lora_dropout,
            **({"keys": sorted(config.lora_keys)} if config.lora_keys else {}),
        },
        "mlxops": dict(run),
    }
    _write(folder, settings)


def describe(folder: Path, run: DescribedRun) -> None:
    """Write what a run's folder says of its run anew; what mlx-lm needs stays as it is."""
    _write(folder, {**json.loads((folder / layout.SETTINGS).read_text(encoding="utf-8")), "mlxops": dict(run)})


def _write(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        files.write_text(folder / layout.SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise Failed(f"the run's folder {str(folder)!r} cannot be written: {error.strerror}") from error


def describes_itself(folder: Path) -> DescribedRun | None:
    """What a run's folder says of its run, None where it is no folder of ours."""
    try:
        run = json.loads((folder / layout.SETTINGS).read_text(encoding="utf-8"))["mlxops"]
        is_known = all(run[name] is not None for name in DescribedRun.__annotations__)
        is_complete = is_known and bool(run["config"]["fine_tune_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if is_complete else None


def occupied_by(folder: Path) -> str | None:
    """What stands in a folder that a new run was to have, None where it is free."""
    if not folder.is_dir():
        return None
    if run := describes_itself(folder):
        return f"holds the run {run['name']!r}"
    if (folder / layout.SETTINGS).exists() or files.matching(folder, "*adapters*.safetensors"):
        return "holds an adapter that this toolkit did not make"
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        return "is not empty, and no run's folder"
    return None
