"""How many times as fast as `mlx_lm.lora` the arithmetic lets mlxops be on the rows of `train_speed/`.

With P parameters in a layer, V in the head, N of L layers trained, a position costs `mlx_lm.lora` (L P + V) +
(N P + V), and 2 N P here, 2 V more where it is trained, and (L - N) P the first time. A validation costs L P + V for
each of its positions, and here N P, V more where something is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxops.training.batches import Batch

DATA = Path(__file__).resolve().parent / "train_speed"
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a training set comes to: positions of an epoch here and there, and those trained; the same of validation."""

    ours: int
    theirs: int
    trained: int
    projected: int
    validated: int
    validated_theirs: int
    compared: int


_COUNTS: dict[Path, Counts] = {}


def counts(model: Path) -> Counts:
    """What both programs compute of the rows: batches of `BATCH`, padded to 16 here and to 32 there."""
    if model not in _COUNTS:
        from mlxops import data
        from mlxops.models.tokenizer import load_tokenizer
        from mlxops.training import batches

        splits, tokenizer = data.read(DATA), load_tokenizer(model)
        train, valid = (
            data.tokenize(side, tokenizer, max_seq_length=2048, mask_prompt=True).rows
            for side in (splits.train, splits.valid)
        )
        plan = batches.plan(train, batch_size=BATCH, seed=0)
        held_out = batches.fixed_batches(valid, batch_size=BATCH, count=-1, seed=0)
        _COUNTS[model] = Counts(
            ours=sum(rows * width for rows, width in plan.shapes_of_groups),
            theirs=_padded_there([each.length for each in train]),
            trained=sum(each.trained for each in train),
            projected=sum(
                batches.projected(sum(train[index].trained for index in group), rows * width)
                for group, (rows, width) in zip(plan.groups, plan.shapes_of_groups, strict=True)
            ),
            validated=sum(each.arrays["mask"].size for each in held_out),
            validated_theirs=_padded_there([each.length for each in valid]),
            compared=sum(each.trained for each in held_out),
        )
    return _COUNTS[model]


def validation(model: Path) -> list[Batch]:
    """The validation rows in batches."""
    from mlxops import data
    from mlxops.models.tokenizer import load_tokenizer
    from mlxops.training import batches

    rows = data.tokenize(data.read(DATA).valid, load_tokenizer(model), max_seq_length=2048, mask_prompt=True).rows
    return batches.fixed_batches(rows, batch_size=BATCH, count=-1, seed=0)


def _padded_there(lengths: Sequence[int]) -> int:
    """The positions of an epoch of `mlx_lm.lora` (mlx_lm/tuner/trainer.py, iterate_batches).

    Its batches have the order of the file: what it sorts by is the same for every row (`CacheDataset.itemlen`).
    """
    longest = [max(lengths[start : start + BATCH]) for start in range(0, len(lengths) - BATCH + 1, BATCH)]
    return sum(BATCH * 32 * -(-each // 32) for each in longest)


def limit(model: Path, layers: int, epochs: int) -> float:
    """How many times as fast the arithmetic lets us be."""
    from mlxops.models import memory

    shape, count = memory.shape_of(model), counts(model)
    there = len(shape.layers)
    trained = there if layers < 0 else layers
    per_layer = (
        sum(each.inputs * each.outputs * each.active for layer in shape.layers for each in layer.matrices) / there
    )
    head = shape.vocabulary * shape.hidden
    whole, part = there * per_layer, trained * per_layer
    validations = epochs + 1  # before the first one and after each
    slow = epochs * count.theirs * (whole + head + part + head) + validations * count.validated_theirs * (whole + head)
    fast = epochs * (count.ours * 2 * part + count.trained * 2 * head) + count.ours * (whole - part)
    fast += validations * (count.validated * part + count.compared * head) + count.validated * (whole - part)
    return slow / fast


def attention_share(model: Path) -> float:
    """What the products of attention come to, as a share of those of the matrices of a layer; no part of the limit.

    A position takes 2 W Q of them, with W positions in its row and queries of Q numbers.
    """
    from mlxops import data
    from mlxops.models import memory
    from mlxops.models.tokenizer import load_tokenizer
    from mlxops.training import batches

    shape = memory.shape_of(model)
    train = data.tokenize(data.read(DATA).train, load_tokenizer(model), max_seq_length=2048, mask_prompt=True).rows
    shapes = batches.plan(train, batch_size=BATCH, seed=0).shapes_of_groups
    width = sum(rows * width**2 for rows, width in shapes) / sum(rows * width for rows, width in shapes)
    matrices = shape.layers[0].matrices
    queries = next(each.inputs for each in matrices if each.name.endswith("o_proj"))
    return 2 * width * queries / sum(each.inputs * each.outputs * each.active for each in matrices)
