"""What older versions of mlx-lm called the settings of an adapter: one vocabulary for recipes and adapter folders.

Data and arithmetic alone. Where a name of today stands beside an older one, that of today counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAYERS = "lora_layers"
"""`num_layers`."""

DORA = "use_dora"
"""`fine_tune_type: dora`, where it is true."""

ALPHA = "alpha"
"""In `lora_parameters`: the scale was multiplied by alpha / rank, which is the whole factor where no scale is given."""


def layers_of(settings: Mapping[str, Any]) -> Any:
    """How many layers are trained, None where the settings do not tell.

    >>> layers_of({"lora_layers": 16}), layers_of({"num_layers": 8, "lora_layers": 16})
    (16, 8)
    """
    count = settings.get("num_layers")
    return settings.get(LAYERS) if count is None else count


def kind_of(settings: Mapping[str, Any]) -> Any:
    """The `fine_tune_type`, None where the settings do not tell.

    >>> kind_of({"use_dora": True}), kind_of({"fine_tune_type": "lora", "use_dora": True}), kind_of({})
    ('dora', 'lora', None)
    """
    return settings.get("fine_tune_type") or ("dora" if settings.get(DORA) else None)


def scale_of(scale: float | None, alpha: float | None, rank: int) -> float | None:
    """The factor on an adapter's output, None where nothing tells.

    >>> scale_of(10.0, 16.0, 8), scale_of(None, 16.0, 8), scale_of(20.0, None, 8)
    (20.0, 2.0, 20.0)
    """
    if alpha is None:
        return scale
    return alpha / rank if scale is None else scale * alpha / rank
