"""How much memory a model takes here, at settings that are the same for all models so that they can be compared.

Making text: a conversation of 2,048 tokens. LoRA: the usual settings, four rows of 512 tokens.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata

from mlxops import system
from mlxops.config import LoraConfig
from mlxops.jobs.train import memory as training
from mlxops.models import memory
from mlxops.projects import machine

CONVERSATION = 2048
ROWS = 4
WIDTH = 512


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes of memory that a model takes to make text, and to train with LoRA."""

    loading: int
    training: int


def of_shape(shape: memory.Shape, dtype: str, *, rows: int = ROWS, width: int = WIDTH) -> Needs:
    """The estimate of a model whose files have numbers of this type."""
    on_cpu = not _has_gpu()
    # a processor computes in float32, whatever the files have
    dtype = "float32" if on_cpu else dtype
    trained = _usual(len(shape.layers))
    return Needs(
        loading=memory.generating(shape, tokens=CONVERSATION, dtype=dtype, keeps_scores=on_cpu).peak,
        training=memory.training(shape, trained, rows=rows, width=width, dtype=dtype, keeps_scores=on_cpu).peak,
    )


@functools.cache
def _usual(layers: int) -> memory.Trained:
    """What the usual settings train of a model of so many layers."""
    return training.trained_part(LoraConfig(), layers)


def _has_gpu() -> bool:
    """Whether MLX is the one for a GPU; MLX is not imported for that."""
    return system.ON_MACOS or _has_cuda()


@functools.cache
def _has_cuda() -> bool:
    return any(any(metadata.distributions(name=each)) for each in ("mlx-cuda-12", "mlx-cuda-13"))


def room() -> int:
    """The bytes of memory that are free here, or what a Mac recommends for its GPU where that is less."""
    return training.room() if system.ON_MACOS else machine.free_memory()
