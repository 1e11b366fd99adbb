"""The optimizers of `mlx_lm.lora`, made from the settings."""

from __future__ import annotations

import inspect

import mlx.core as mx
import mlx.optimizers as optim

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.likeness import nearest
from mlxops.training.ways import SCALED, WAYS

_CLASSES = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


def make(config: LoraConfig, *, adafactor: str = next(iter(WAYS["adafactor"]))) -> optim.Optimizer:
    """The optimizer with `optimizer_config`'s arguments for it; its learning rate is set again at every update.

    `adafactor` is the way of that part (see `ways`). Raises `BadRequest` for an argument the optimizer does not have or
    cannot take.
    """
    for name in config.optimizer_config:
        if name not in _CLASSES:
            near = nearest(name, _CLASSES)
            raise BadRequest(
                f"optimizer_config knows {', '.join(_CLASSES)}, not {name!r}",
                hint=f"did you mean {near!r}?"
                if near
                else f"""arguments stand by optimizer: '{{"{config.optimizer}": {{"{name}": …}}}}'""",
            )
    kind = _CLASSES[config.optimizer]
    # mlx's default is a relative step, under which --learning-rate would have no effect
    ours = {"relative_step": False, "scale_parameter": adafactor == SCALED} if config.optimizer == "adafactor" else {}
    arguments = {**ours, **(config.optimizer_config.get(config.optimizer) or {})}
    known = set(inspect.signature(kind).parameters) - {"learning_rate"}
    for name in arguments:
        if name not in known:
            near = nearest(name, known)
            others = [other for other, each in _CLASSES.items() if name in inspect.signature(each).parameters]
            raise BadRequest(
                f"{config.optimizer} takes {', '.join(sorted(known))}, not {name!r}",
                hint=f"{' and '.join(others)} can: `--optimizer {others[0]}`"
                if others
                else f"did you mean {near!r}?"
                if near
                else None,
            )
    try:
        _try_out(kind(learning_rate=config.learning_rate, **arguments))
        return kind(learning_rate=config.learning_rate, **arguments)
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise BadRequest(f"{config.optimizer} cannot take {arguments!r}: {error}") from error


def _try_out(optimizer: optim.Optimizer) -> None:
    """Make one small update: an argument of a wrong kind is not noticed before."""
    weights = {"w": mx.ones((2, 2))}
    mx.eval(optimizer.apply_gradients(weights, weights))
