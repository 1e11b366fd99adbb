"""Loading a model into MLX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxops.errors import BadRequest
from mlxops.models.folders import check_model

if TYPE_CHECKING:
    import mlx.nn


def load_model(
    folder: Path, *, dtype: Literal["float32", "float16", "bfloat16"] | None = None, lazy: bool = False
) -> tuple[mlx.nn.Module, dict[str, Any]]:
    """The model of a folder and its configuration, or `BadRequest`. All weights are in memory unless it is `lazy`.

    `dtype` changes all numbers that are not packed, scales included; None leaves them as the files have them. On a
    processor (not a GPU) MLX multiplies packed matrices with scales in float16 some 40 times slower than in float32.
    """
    info = check_model(folder)
    import mlx.core as mx
    from mlx_lm import utils

    try:
        model, config = utils.load_model(folder, lazy=lazy)
    except (ValueError, TypeError, KeyError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadRequest(
            f"mlx-lm cannot load {folder.name!r} (architecture {info.model_type!r}): {first_line}",
            hint="its configuration and its weights do not fit together; get the model again",
        ) from error
    if dtype is not None:
        model.set_dtype(getattr(mx, dtype))
        if not lazy:
            mx.eval(model.parameters())
    return model, config


def load_for_generation(folder: Path, *, dtype: Literal["float32", "float16", "bfloat16"] | None = None) -> Any:
    """The model of a folder, and its tokenizer as mlx-lm's generation wants it: with all ids that end a turn."""
    model, config = load_model(folder, dtype=dtype)
    from mlx_lm.utils import load_tokenizer

    return model, load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))


def put_on_adapter(model: mlx.nn.Module, folder: Path) -> None:
    """Give a model the adapter of a run's folder. Raises `BadRequest` if it is not one for this model."""
    from mlx_lm.tuner.utils import load_adapters

    try:
        load_adapters(model, str(folder))
    except (ValueError, KeyError, FileNotFoundError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadRequest(f"the adapter in {str(folder)!r} does not fit the model: {first_line}") from error
    model.eval()
