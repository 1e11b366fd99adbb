"""The optimizers of `mlx_lm.lora`, made from the settings."""

from __future__ import annotations

import inspect
from typing import Any

import mlx.optimizers as optim

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.options import nearest

_CLASSES = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}

_OURS: dict[str, dict[str, Any]] = {
    # mlx's default is a relative step, under which --learning-rate would have no effect
    "adafactor": {"relative_step": False},
}


def make(config: LoraConfig) -> optim.Optimizer:
    """The optimizer with `optimizer_config`'s arguments for it; its learning rate is set anew at every update.

    Raises `BadRequest` for an argument it does not have or cannot take.
    """
    kind = _CLASSES[config.optimizer]
    arguments = {**_OURS.get(config.optimizer, {}), **(config.optimizer_config.get(config.optimizer) or {})}
    known = set(inspect.signature(kind).parameters) - {"learning_rate"}
    for name in arguments:
        if name not in known:
            near = nearest(name, known)
            raise BadRequest(
                f"{config.optimizer} takes {', '.join(sorted(known))}, not {name!r}",
                hint=f"did you mean {near!r}?" if near else None,
            )
    try:
        return kind(learning_rate=config.learning_rate, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise BadRequest(f"{config.optimizer} cannot take {arguments!r}: {error}") from error
