"""What a step takes of a batch, and the score that goes with it: by the ways of the run and what the model allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxops import words
from mlxops.training import forward, score, ways
from mlxops.training.objectives.terms import Score
from mlxops.training.prefix import Prefix, Room
from mlxops.training.profile import Profile

if TYPE_CHECKING:
    from mlxops.training.batches import Batch, Plan


class Inputs:
    """The arrays of batches, and the score of an objective over them.

    `is_at_trained` says that logits are computed at trained positions alone; `notes` say what of it could not be had
    with this model, and what is kept of batches that come again.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        validation: Sequence[Batch],
        target: int,
        *,
        chosen: Mapping[str, str],
        room: Room,
        profile: Profile,
    ) -> None:
        self._profile = profile
        tokens = next(_tokens_of(plan.batch(1)))
        found = forward.look(
            model,
            tokens,
            shapes=plan.shapes,
            at_head=chosen["loss"] == ways.TRAINED,
            at_first_trained=chosen["prefix"] == ways.APART,
        )
        # what a step computes must not depend on the rows that are validated: their number may change on the way
        further = {(len(each), each.shape[1]) for batch in validation for each in _tokens_of(batch)} - plan.shapes
        self._whole = None if forward.holds_at(found, tokens, further) else score.plain(model, way=chosen["loss"])
        self.prefix = None if found.first_trained is None else Prefix(found, room)
        self.is_at_trained = found.head is not None
        self.score = (
            score.at_trained_positions(found)
            if self.is_at_trained
            else score.at_every_position(found, way=chosen["loss"])
        )
        self.notes = found.notes
        size = found.position_bytes * sum(rows * width for rows, width in plan.shapes_of_groups)
        if self.prefix is not None and target > len(plan):
            self.notes += _on_what_is_kept(found.layers_below, size, room.memory + room.disk)

    def of(self, batch: Batch, *, uses: float) -> dict[str, mx.array]:
        """The arrays of a batch, and of each part the hidden state that enters the first trained layer.

        `uses` is how many times per iteration the batch is going to come again.
        """
        with self._profile.part("data"):
            arrays = score.arrays_of(batch, at_trained=self.is_at_trained)
        if self.prefix is not None:
            for name, tokens in batch.arrays.items():
                *part, last = name.split(".")
                if last == "tokens":
                    with self._profile.part("prefix"):
                        arrays[".".join([*part, "hidden"])] = self.prefix.of(tokens[:, :-1], uses=uses)
        return arrays

    def of_validation(self, batch: Batch, *, uses: float) -> tuple[Score, dict[str, mx.array]]:
        """The score for a validation batch, and its arrays: of the whole model where a place is missing at a shape."""
        if self._whole is not None:
            return self._whole, score.arrays_of(batch)
        return self.score, self.of(batch, uses=uses)

    @property
    def bytes_in_memory(self) -> int:
        """What hidden states take of the memory."""
        return 0 if self.prefix is None else self.prefix.bytes_in_memory

    def metrics(self) -> dict[str, float]:
        """What was kept and found since the last call."""
        return {} if self.prefix is None else self.prefix.metrics()


def _tokens_of(batch: Batch) -> Iterator[np.ndarray]:
    """What the model computes of each part of a batch: all tokens but the last of a row, which predicts nothing."""
    for name, each in batch.arrays.items():
        if name.split(".")[-1] == "tokens":
            yield each[:, :-1]


def _on_what_is_kept(layers: int, size: int, room: int) -> tuple[str, ...]:
    """What to say of so many layers, whose output takes so many bytes for all batches of an epoch."""
    if not room:
        return ()
    below = (
        "layer below the first trained one is" if layers == 1 else f"{layers} layers below the first trained one are"
    )
    if size > room:
        part = f"for as many batches as {words.size(room)} hold, of {words.size(size)}"
    else:
        part = f"for each batch and kept, about {words.size(size)} in all"
    return (f"the {below} computed once {part} (`--prefix-cache`)",)
