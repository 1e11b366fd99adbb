"""Adapters in and out of one loaded model: afterwards it computes bit for bit what a fresh load computes.

mlx-lm's own functions build the adapted layers. What they replaced is put back as the very objects that it was, which
holds for every kind of adapter; mlx-lm's `remove_lora_layers` knows one kind only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlxops import words
from mlxops.errors import BadRequest

_LEAVES = ("lora_a", "lora_b", "m")
_NAMED = 3  # tensors that an error names; the rest is counted


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """An adapter as its folder describes it: the file of its tensors, and the layers that they belong in.

    `name` is what messages call it, the run that made it included; `identity` tells it from any other, also from the
    same one at another iteration. `keys` None means all layers that can be adapted; `model_identity` None means that
    nobody recorded which model it was trained on.
    """

    name: str
    identity: str
    weights: Path
    fine_tune_type: Literal["lora", "dora", "full"]
    num_layers: int
    rank: int = 8
    scale: float = 20.0
    keys: Sequence[str] | None = None
    model: str | None = None
    model_identity: str | None = None


@dataclass(kw_only=True)
class _Replaced:
    """What the adapter took the place of."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    arrays: dict[str, mx.array] = field(default_factory=dict)


class AdapterSlot:
    """The place of one adapter in a loaded model.

    `identify` gives the SHA-256 that the model is known by. It is asked only where an adapter recorded one: reading
    all of a large model takes a while.
    """

    def __init__(self, model: nn.Module, *, identify: Callable[[], str] | None = None, name: str = "the model") -> None:
        self.adapter: AdapterSpec | None = None
        self._model = model
        self._identify = identify
        self._name = name
        self._replaced = _Replaced()

    @property
    def owner(self) -> str:
        """What a prompt cache of the model as it is now belongs to."""
        return f"{self._name} + {self.adapter.identity if self.adapter else 'no adapter'}"

    def put_in(self, adapter: AdapterSpec) -> None:
        """Give the model this adapter in place of the one that it has.

        Raises `BadRequest` for an adapter of another model and for tensors that do not fit: unknown ones, ones of
        another shape, missing ones. The model then has no adapter.
        """
        self.take_out()
        self._check_model(adapter)
        tensors = _read(adapter)
        try:
            if adapter.fine_tune_type == "full":
                self._replace_weights(adapter, tensors)
            else:
                self._replace_layers(adapter, tensors)
            mx.eval(self._model.parameters())
        except BaseException:
            self.take_out()
            raise
        self._model.eval()
        self.adapter = adapter

    def take_out(self) -> None:
        """Give the model back what the adapter took the place of."""
        if self._replaced.modules:
            self._model.update_modules(tree_unflatten(list(self._replaced.modules.items())))
        if self._replaced.arrays:
            self._model.update(tree_unflatten(list(self._replaced.arrays.items())))
        self._replaced = _Replaced()
        self.adapter = None

    def _check_model(self, adapter: AdapterSpec) -> None:
        recorded = adapter.model_identity
        identity = self._identify() if recorded is not None and self._identify is not None else None
        if recorded is not None and identity is not None and recorded != identity:
            raise BadRequest(
                f"{adapter.name} was trained on another model{f', {adapter.model!r}' if adapter.model else ''}: "
                f"the identity of {self._name} is {identity[:12]}, and {recorded[:12]} was recorded",
                hint="give the model that it was trained on",
            )

    def _replace_layers(self, adapter: AdapterSpec, tensors: Mapping[str, mx.array]) -> None:
        before = dict(self._model.named_modules())
        settings: dict[str, Any] = {"rank": adapter.rank, "scale": adapter.scale, "dropout": 0.0}
        if adapter.keys is not None:
            settings["keys"] = set(adapter.keys)
        try:
            linear_to_lora_layers(self._model, adapter.num_layers, settings, use_dora=adapter.fine_tune_type == "dora")
        except ValueError as error:
            raise BadRequest(f"{adapter.name} does not fit {self._name}: {error}") from error
        finally:
            now = dict(self._model.named_modules())
            self._replaced.modules = _outermost(
                {name: module for name, module in before.items() if now.get(name) is not module}
            )
        expected = {
            name: value for name, value in tree_flatten(self._model.parameters()) if name.rpartition(".")[2] in _LEAVES
        }
        self._check_tensors(adapter, tensors, allowed=expected, needed=set(expected))
        self._model.load_weights(list(tensors.items()), strict=False)

    def _replace_weights(self, adapter: AdapterSpec, tensors: Mapping[str, mx.array]) -> None:
        parameters = dict(tree_flatten(self._model.parameters()))
        # as in training, what is quantized has no gradient and is not part of it
        self._model.freeze()
        for layer in self._model.layers[-max(adapter.num_layers, 0) :]:
            layer.unfreeze()
        needed = {name for name, _ in tree_flatten(self._model.trainable_parameters())}
        self._model.freeze()
        self._check_tensors(adapter, tensors, allowed=parameters, needed=needed)
        self._replaced.arrays = {name: parameters[name] for name in tensors}
        self._model.load_weights(list(tensors.items()), strict=False)

    def _check_tensors(
        self,
        adapter: AdapterSpec,
        tensors: Mapping[str, mx.array],
        *,
        allowed: Mapping[str, mx.array],
        needed: set[str],
    ) -> None:
        misshaped = {
            f"{name} {tuple(value.shape)} instead of {tuple(allowed[name].shape)}"
            for name, value in tensors.items()
            if name in allowed and value.shape != allowed[name].shape
        }
        problems = [
            _counted(sorted(found), what)
            for found, what in (
                (tensors.keys() - allowed.keys(), "the model has no place for"),
                (misshaped, "of another shape"),
                (needed - tensors.keys(), "missing"),
            )
            if found
        ]
        if problems:
            raise BadRequest(
                f"{adapter.name} does not fit {self._name}: {'; '.join(problems)}",
                hint="give the model that it was trained on; the file may also be of another training",
            )


def _read(adapter: AdapterSpec) -> dict[str, mx.array]:
    try:
        tensors: Any = mx.load(str(adapter.weights))
        mx.eval(tensors)  # MLX reads lazily, and a training may replace the file
    except (RuntimeError, ValueError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadRequest(
            f"{adapter.name} cannot be read: {first_line}", hint="another checkpoint of the run may be whole"
        ) from error
    return dict(tensors)


def _outermost(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Without the modules that stand inside another one of them."""
    names = set(modules)

    def is_inside(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:end]) in names for end in range(1, len(parts)))

    return {name: module for name, module in modules.items() if name and not is_inside(name)}


def _counted(names: Sequence[str], what: str) -> str:
    return f"{words.plural(len(names), 'tensor')} {what} ({words.listed(names, _NAMED)})"
