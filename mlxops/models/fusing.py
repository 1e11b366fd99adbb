"""A base model and its adapter as one model.

mlx-lm's own layers say what their fused weights are. Here they compute that in float32, whatever the base is in, so
that only the last rounding, to the type of the base, costs anything: mlx-lm rounds the change and the sum, and gives
the layers of DoRA another type than the others have.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from mlx_lm.tuner.dora import DoRAEmbedding
from mlx_lm.utils import dequantize_model, quantize_model

from mlxops.errors import BadRequest
from mlxops.models.loader_errors import loader_errors

_PACKED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def fuse_layers(
    model: nn.Module, *, dequantize: bool = False, progress: Callable[[int, int], None] | None = None
) -> tuple[str, ...]:
    """Replace every adapted layer of a model by one that computes the same, packed where its base is; their names.

    `dequantize` leaves the fused layers unpacked, as the type that unpacking gives; the others stay as they are.
    `progress` is told the layers done and their number. A model whose weights were trained themselves has no such
    layer and stays as it is. Raises `BadRequest` for a packing that mlx-lm does not unpack.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "fuse")}
    for done, (name, module) in enumerate(adapted.items(), start=1):
        _check_packing(_base(module), name)
        if isinstance(module, DoRAEmbedding) and isinstance(_base(module), nn.QuantizedEmbedding):
            raise BadRequest(
                f"{name}: mlx-lm cannot compute DoRA of quantized embeddings",
                hint="the adapter is of another model; give the one that it was trained on",
            )
        fused = _fused(module, dequantize=dequantize)
        mx.eval(fused.parameters())
        model.update_modules(tree_unflatten([(name, fused)]))
        if progress is not None:
            progress(done, len(adapted))
    model.freeze()
    model.eval()
    return tuple(adapted)


def types_of(model: nn.Module) -> dict[str, mx.Dtype]:
    """The types of a model's numbers, by name."""
    return {name: array.dtype for name, array in tree_flatten(model.parameters())}


def restore_types(model: nn.Module, types: Mapping[str, mx.Dtype]) -> None:
    """Give numbers the types that they had before: weights trained themselves were kept in the type of training."""
    changed = [
        (name, array.astype(types[name]))
        for name, array in tree_flatten(model.parameters())
        if name in types and array.dtype != types[name]
    ]
    model.update(tree_unflatten(changed))


def type_of(config: Mapping[str, Any]) -> str | None:
    """The type of numbers that a model's configuration names; None where it names none that MLX computes in."""
    text = config.get("text_config")
    places = [config, text] if isinstance(text, Mapping) else [config]
    said = [place.get(name) for place in places for name in ("torch_dtype", "dtype")]
    return next((each for each in said if each in ("float16", "bfloat16", "float32")), None)


def cast(model: nn.Module, dtype: str | None) -> None:
    """Give a model's numbers a type, but for those that its architecture keeps; None leaves them as they are."""
    if dtype is None:
        return
    keeps = getattr(model, "cast_predicate", lambda _: True)
    wanted = getattr(mx, dtype)
    changed = [
        (name, array.astype(wanted))
        for name, array in tree_flatten(model.parameters())
        if keeps(name) and mx.issubdtype(array.dtype, mx.floating)
    ]
    model.update(tree_unflatten(changed))


def share(model: nn.Module, other: nn.Module) -> None:
    """Have the second model use the arrays of the first where they are equal, so that both take less memory.

    Of two models that were loaded lazily, no more than one equal array is ever in memory twice.
    """
    arrays, others = dict(tree_flatten(model.parameters())), dict(tree_flatten(other.parameters()))
    for name in list(others):
        array = others.pop(name)
        if name in arrays and array.dtype == arrays[name].dtype and mx.array_equal(array, arrays[name]).item():
            other.update(tree_unflatten([(name, arrays[name])]))


def unpack(model: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """Unpack every quantized layer of a model, and return the configuration without its quantization.

    Raises `BadRequest` for a packing that mlx-lm does not unpack.
    """
    for name, module in model.named_modules():
        _check_packing(module, name)
    dequantize_model(model)
    return {name: value for name, value in config.items() if name not in ("quantization", "quantization_config")}


def pack(
    model: nn.Module,
    config: Mapping[str, Any],
    *,
    bits: int | None,
    group_size: int | None = None,
    mode: str = "affine",
    recipe: str | None = None,
) -> dict[str, Any]:
    """Quantize a model as mlx-lm does, and return the configuration that says so.

    None takes what mlx-lm takes for the mode; `recipe` is one of its mixed ones. Raises `BadRequest` for what does not
    go together.
    """
    from mlx_lm.convert import mixed_quant_predicate_builder

    with (
        loader_errors("the model cannot be quantized", name=str(config.get("model_type"))),
        redirect_stdout(io.StringIO()),  # mlx-lm says how many bits it came to
    ):
        predicate = None if recipe is None else mixed_quant_predicate_builder(recipe, model, group_size or 64)
        return dict(
            quantize_model(model, dict(config), group_size, bits, mode=mode, quant_predicate=predicate)[1],
        )


def _base(module: Any) -> Any:
    """The layer that an adapted one is made of."""
    return module.linear if "linear" in module else module.embedding


def _check_packing(module: Any, name: str) -> None:
    if getattr(module, "global_scale", None) is not None:
        raise BadRequest(
            f"{name} is packed with a scale for each expert (nvfp4), which mlx-lm leaves out when it unpacks",
            hint="take the same model unpacked, or packed otherwise",
        )


def _fused(module: Any, *, dequantize: bool) -> nn.Module:
    base = _base(module)
    if isinstance(base, _PACKED) and type(base) not in _PACKED:
        # a layer of the model's own, which mlx-lm unpacks into one of another kind
        return module.fuse(dequantize=dequantize)
    packing = {name: getattr(base, name) for name in ("group_size", "bits", "mode")} if type(base) in _PACKED else None
    dequantize_model(module)
    dtype = _base(module).weight.dtype
    module.set_dtype(mx.float32)
    fused: Any = module.fuse(dequantize=True)
    fused.set_dtype(dtype)
    return fused if packing is None or dequantize else fused.to_quantized(**packing)
