"""The memory that a training is going to take, of its model, settings and longest batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxops.config import LoraConfig
from mlxops.config.train import layers_trained
from mlxops.models import memory
from mlxops.models.memory import TrainingMemory
from mlxops.projects import machine
from mlxops.system import gpu
from mlxops.training import ways

_MARGIN = 1.05

if TYPE_CHECKING:
    from mlxops.jobs.train.environment import Environment
    from mlxops.jobs.train.prepare import Prepared


def estimate(prepared: Prepared, *, dtype: str | None, device: str, loss: str = ways.TRAINED) -> TrainingMemory:
    """What the batch takes that takes most; `dtype` None is the model's own, `loss` the way of that part."""
    shape = memory.shape_of(prepared.model_folder)
    trained = trained_part(prepared.config, len(shape.layers))
    each = (
        memory.training(
            shape,
            trained,
            rows=rows,
            width=width,
            dtype=dtype or prepared.model.dtype,
            keeps_scores=device == "cpu",
            projected=projected if loss == ways.TRAINED else rows * width,
            is_lean=loss == ways.TRAINED,
        )
        for rows, width, projected in prepared.plan.loads
    )
    return max(each, key=lambda found: found.peak)


def of_attempt(prepared: Prepared, environment: Environment) -> TrainingMemory:
    """The same of a training by the choices of its run."""
    chosen = environment.automatic
    loss = ways.choose(chosen)["loss"]
    return estimate(prepared, dtype=chosen.get("dtype"), device=environment.device, loss=loss)


def to_hold_to(prepared: Prepared, environment: Environment) -> int | None:
    """The bytes that a training holds itself to, where it computes logits in pieces; None where it need not.

    MLX takes the memory of what a processor is going to compute long before its turn, so pieces would all be there at
    once. Beyond its memory limit it waits.
    """
    if environment.device != "cpu" or prepared.config.memory_limit is not None:
        return None
    found = of_attempt(prepared, environment)
    return int(_MARGIN * found.peak) if found.in_pieces else None


def trained_part(config: LoraConfig, layers: int) -> memory.Trained:
    """What of a model of so many layers these settings train, and how."""
    return memory.Trained(
        kind=config.fine_tune_type,
        layers=layers_trained(config, layers),
        rank=config.lora_rank,
        keys=tuple(config.lora_keys),
        dropout=config.lora_dropout,
        optimizer=config.optimizer,
        accumulates=config.grad_accumulation_steps > 1,
        recomputes=config.grad_checkpoint,
    )


def room() -> int:
    """The bytes of memory that a training or a model can still take: of the GPU in use, else of the machine."""
    found = gpu.room()
    return machine.free_memory() if found is None else found


def in_use() -> int:
    """The bytes that MLX has in arrays in this process."""
    import mlx.core as mx

    return int(mx.get_active_memory())
