"""The fingerprint of a run: one hash of all that decides its weights.

Pure: identities of model and data come in as values. What a fingerprint means for a command is decided in `decide`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlxops.config import LoraConfig
from mlxops.options import options_of


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The SHA-256 of all that decides the weights."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def deciding_settings(config: LoraConfig, *, model: str, data: str, target: int) -> dict[str, Any]:
    """All that decides the weights: the settings of that class and the identities of model and data.

    The target belongs to it only where the schedule runs over the whole training.
    """
    settings = {each.name: getattr(config, each.name) for each in options_of(LoraConfig) if each.role == "weights"}
    settings["optimizer_config"] = config.optimizer_config.get(config.optimizer) or {}
    settings["lora_keys"] = sorted(config.lora_keys)
    return settings | {
        "model_identity": model,
        "data_identity": data,
        "schedule_iterations": target if uses_total(config) else None,
    }


def uses_total(config: LoraConfig) -> bool:
    """Whether the schedule runs over the whole training, so that another target is another training."""
    return config.lr_schedule in ("cosine_decay", "linear_schedule") and not config.lr_schedule_arguments
