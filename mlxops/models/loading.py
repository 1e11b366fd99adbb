"""Loading a model into MLX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest
from mlxops.models.folders import check_model

if TYPE_CHECKING:
    import mlx.nn


def load_model(folder: Path) -> tuple[mlx.nn.Module, dict[str, Any]]:
    """The model of a folder with all weights in memory, and its configuration. Raises `BadRequest` if it cannot be."""
    info = check_model(folder)
    from mlx_lm import utils

    try:
        return utils.load_model(folder, lazy=False)
    except (ValueError, TypeError, KeyError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadRequest(
            f"mlx-lm cannot load {folder.name!r} (architecture {info.model_type!r}): {first_line}",
            hint="its configuration and its weights do not fit together; get the model again",
        ) from error
