"""Making a model ready to train: what is frozen, what is adapted, dropout by key, gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlxops.config import LoraConfig
from mlxops.config.train import layers_trained
from mlxops.errors import BadRequest


class KeyedDropout(nn.Module):
    """Dropout whose mask comes from a key that is set from outside.

    Recomputing a layer then draws the same mask again, which gradient checkpointing needs: with a mask from the
    global random state its gradients are wrong.
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        self._keep = keep
        self._holder = _Holder()

    @property
    def key(self) -> mx.array:
        """The key of the next mask, of shape (2,)."""
        return self._holder.key

    def take(self, key: mx.array) -> None:
        """Draw the next mask from this key."""
        self._holder.key = key

    def __call__(self, x: mx.array) -> mx.array:
        if not self.training:
            return x
        mask = mx.random.bernoulli(self._keep, x.shape, key=self.key)
        return mx.where(mask, x * (1 / self._keep), 0).astype(x.dtype)


class _Holder:
    """Keeps the key out of the module's tree, where an array counts as a parameter."""

    key: mx.array


def prepare(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Freeze the model, unfreeze or adapt what is to be trained, and seed the adapter's first weights.

    Raises `BadRequest` for more layers than there are, for keys that match nothing and for a full fine-tuning of
    quantized weights, which have no gradient.
    """
    model.freeze()
    count = len(model.layers)
    chosen = layers_trained(config, count)
    if chosen > count:
        raise BadRequest(
            f"--num-layers {chosen} is more than the {count} layers of the model",
            hint=f"`--num-layers {count}` or -1 trains all of them",
        )
    mx.random.seed(config.seed % 2**64)
    if config.fine_tune_type == "full":
        _unfreeze(model, chosen)
    else:
        _adapt(model, config, chosen)
    _key_dropouts(model)
    if config.grad_checkpoint:
        for layer in model.layers:
            if tree_flatten(layer.trainable_parameters()):
                _recompute(layer)
    return model


def dropouts(model: nn.Module) -> list[KeyedDropout]:
    """The dropouts that want a key, in a fixed order."""
    return [module for _, module in sorted(model.named_modules(), key=_name) if isinstance(module, KeyedDropout)]


def trainable(model: nn.Module) -> dict[str, mx.array]:
    """What is trained, by name."""
    return dict(tree_flatten(model.trainable_parameters()))


def _unfreeze(model: nn.Module, layers: int) -> None:
    chosen = model.layers[-max(layers, 0) :]
    if any(
        isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)) for each in chosen for module in each.modules()
    ):
        raise BadRequest(
            "a quantized model cannot be trained in full: its weights have no gradient",
            hint="`--fine-tune-type lora` trains an adapter on it, or take the unquantized model",
        )
    for layer in chosen:
        layer.unfreeze()


def _adapt(model: nn.Module, config: LoraConfig, layers: int) -> None:
    settings: dict[str, Any] = {
        "rank": config.lora_rank,
        "scale": config.lora_scale,
        "dropout": config.lora_dropout,
    }
    if config.lora_keys:
        known = {name for layer in model.layers for name, _ in layer.named_modules()}
        known |= {name for name, _ in model.named_modules()}
        unknown = sorted(set(config.lora_keys) - known)
        if unknown:
            linear = sorted({name for name, module in model.layers[-1].named_modules() if hasattr(module, "weight")})
            raise BadRequest(
                f"--lora-keys {unknown[0]!r} is no layer of the model", hint=f"the last block has {', '.join(linear)}"
            )
        settings["keys"] = set(config.lora_keys)
    try:
        linear_to_lora_layers(model, layers, settings, use_dora=config.fine_tune_type == "dora")
    except ValueError as error:
        raise BadRequest(
            f"the model's layers cannot be adapted: {error}",
            hint="`--lora-keys` chooses the layers, e.g. self_attn.q_proj",
        ) from error


def _key_dropouts(model: nn.Module) -> None:
    """Have every dropout that drops anything draw by key, the model's own too: else resuming would draw others."""
    # mlx's layer keeps the share that stays, in a private attribute and nowhere else
    found = {name: each._p_1 for name, each in model.named_modules() if isinstance(each, nn.Dropout)}
    model.update_modules(tree_unflatten([(name, KeyedDropout(keep)) for name, keep in found.items() if keep < 1]))


def _recompute(layer: nn.Module) -> None:
    """Make this layer keep its input alone and compute the rest again in the backward pass.

    Parameters and dropout keys go in as arguments: what `mx.checkpoint` does not see as an argument gets no gradient
    or is drawn again.
    """
    plain: Callable[..., Any] = type(layer).__call__
    masked = dropouts(layer)

    def checkpointed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return plain(self, *args, **kwargs)

        def inner(parameters: Any, keys: list[mx.array], *args: Any, **kwargs: Any) -> Any:
            self.update(parameters)
            for each, key in zip(masked, keys, strict=True):
                each.take(mx.stop_gradient(key))
            return plain(self, *args, **kwargs)

        parameters, keys = self.trainable_parameters(), [each.key for each in masked]
        result = mx.checkpoint(inner)(parameters, keys, *args, **kwargs)
        # what `inner` left in the module are its own arguments, which exist only inside it
        self.update(parameters)
        return result

    # a class of its own for this one layer: patching the model's class would change every model in the process
    layer.__class__ = type(type(layer).__name__, (type(layer),), {"__call__": checkpointed})


def _name(entry: tuple[str, nn.Module]) -> str:
    return entry[0]
