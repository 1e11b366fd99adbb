"""The first checkpoint of a run that begins with another's weights, written before its first step.

From then on the run resumes from a checkpoint like any other, so a kill at any instant costs nothing of what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxops import layout
from mlxops.events import Saved
from mlxops.training import batches, checkpoints, layers, optimizers
from mlxops.training.state import Counters
from mlxops.training.step import Arrays, Work


def read_weights(path: Path) -> Arrays:
    """The arrays of an adapter file, safetensors or npz, read now."""
    # MLX tells a format by the last suffix, which an original that was kept has lost
    loaded = mx.load(str(path), format=Path(path.name.removesuffix(layout.BEFORE)).suffix.removeprefix("."))
    assert isinstance(loaded, dict)
    mx.eval(loaded)
    return loaded


def read_optimizer(state_file: Path) -> Arrays:
    """The optimizer's arrays of a checkpoint, by their names in its state."""
    prefix = "optimizer."
    return {
        name.removeprefix(prefix): value for name, value in read_weights(state_file).items() if name.startswith(prefix)
    }


def misfits(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """What keeps arrays of these shapes from being the trained weights of a model: each one, by name.

    >>> misfits({"a": (2, 4), "b": (1,)}, {"a": (2, 8), "c": (1,)})
    ['c: missing', 'b: the model trains no such array', 'a: is 2 x 4, and the model wants 2 x 8']
    """
    return [
        *(f"{name}: missing" for name in wanted if name not in found),
        *(f"{name}: the model trains no such array" for name in found if name not in wanted),
        *(
            f"{name}: is {_size(found[name])}, and the model wants {_size(wanted[name])}"
            for name in wanted
            if name in found and tuple(found[name]) != tuple(wanted[name])
        ),
    ]


def write(
    work: Work, weights: Mapping[str, mx.array], optimizer: Arrays | None, *, iteration: int, trained_tokens: int
) -> tuple[Saved, bool]:
    """Write the checkpoint at which a run begins; also says whether the optimizer's state is kept.

    It does where its arrays are those that this run's optimizer has. `weights` have to fit the model.
    """
    wanted = layers.trainable(work.model)
    maker = optimizers.make(work.config, adafactor=work.ways["adafactor"])
    maker.init(work.model.trainable_parameters())
    fresh = dict(tree_flatten(maker.state))
    goes_on = optimizer is not None and _shapes(optimizer) == _shapes(fresh)
    state = optimizer if optimizer is not None and goes_on else fresh
    saved = checkpoints.write(
        work.folder,
        weights={name: weights[name].astype(value.dtype) for name, value in wanted.items()},
        weights_to_go_on=None,
        optimizer={name: state[name].astype(value.dtype) for name, value in fresh.items()},
        accumulated={},
        counters=Counters(iteration=iteration, trained_tokens=trained_tokens),
        random=batches.step_key(work.config.seed, iteration + 1),
        fingerprint=work.fingerprint,
        environment=work.environment,
        run=work.run,
    )
    return saved, goes_on


def _shapes(arrays: Mapping[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in arrays.items()}


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
