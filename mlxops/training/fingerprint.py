"""The fingerprint of a run: one hash of all that decides its weights.

Pure: identities of model and data come in as values. What a fingerprint means for a command is decided in `decide`.

Runs outlive versions, so a fingerprint is never computed otherwise than when its run was made: a setting that came
later is in it only where it is not `ADDED`'s value for it, which is how runs from before it were trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlxops.config import LoraConfig
from mlxops.options import options_of

ALWAYS = frozenset(
    {
        "fine_tune_type", "num_layers", "lora_rank", "lora_scale", "lora_dropout", "lora_keys", "optimizer",
        "optimizer_config", "learning_rate", "lr_schedule", "lr_schedule_arguments", "warmup", "warmup_init",
        "max_grad_norm", "batch_size", "grad_accumulation_steps", "max_seq_length", "mask_prompt", "grad_checkpoint",
        "dtype", "seed",
    }
)  # fmt: skip
"""The settings in the fingerprint of every run. A setting that is new goes into `ADDED`, never in here."""

ADDED: dict[str, Any] = {"chat_template_config": {}}
"""The settings that came later, each with what runs from before it were trained with. A value never changes, even
where the option's default does."""


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The SHA-256 of all that decides the weights."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def deciding_settings(config: LoraConfig, *, model: str, data: str, target: int) -> dict[str, Any]:
    """All that decides the weights: the settings of that class and the identities of model and data.

    The target belongs to it only where the schedule runs over the whole training.
    """
    read_from: Any = type(config)
    names = [each.name for each in options_of(read_from) if each.role == "weights"]
    settings = {name: getattr(config, name) for name in names}
    settings["optimizer_config"] = config.optimizer_config.get(config.optimizer) or {}
    settings["lora_keys"] = sorted(config.lora_keys)
    settings = {name: value for name, value in settings.items() if name in ALWAYS or value != ADDED[name]}
    return settings | {
        "model_identity": model,
        "data_identity": data,
        "schedule_iterations": target if uses_total(config) else None,
    }


def value_of(settings: Mapping[str, Any], name: str) -> Any:
    """A setting of a run, also where the run is from before it; None where it has none."""
    return settings.get(name, ADDED.get(name))


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `runs.config` of a run of ours with every setting, also where it is from before some of them.

    What did not decide the weights then is at its default.
    """
    usual = {each.name: each.default for each in options_of(LoraConfig) if each.role not in ("weights", "command")}
    return {**usual, **ADDED, **config}


def uses_total(config: LoraConfig) -> bool:
    """Whether the schedule runs over the whole training, so that another target is another training."""
    return config.lr_schedule in ("cosine_decay", "linear_schedule") and not config.lr_schedule_arguments
