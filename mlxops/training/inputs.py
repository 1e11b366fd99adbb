"""What a step takes of a batch, and the score that goes with it: by the ways of the run and what the model allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from mlxops import words
from mlxops.training import forward, score, ways
from mlxops.training.prefix import Prefix, Room
from mlxops.training.profile import Profile

if TYPE_CHECKING:
    from mlxops.training.batches import Batch, Plan


class Inputs:
    """The arrays of batches, and the score of an objective over them.

    `notes` say what of it could not be had with this model, and what is kept of batches that come again.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, target: int, *, chosen: Mapping[str, str], room: Room, profile: Profile
    ) -> None:
        self._profile = profile
        batch = plan.batch(1)
        found = forward.look(
            model,
            next(each for name, each in batch.arrays.items() if name.split(".")[-1] == "tokens"),
            at_head=chosen["loss"] == ways.TRAINED,
            at_first_trained=chosen["prefix"] == ways.APART,
        )
        self.prefix = None if found.first_trained is None else Prefix(found, room)
        self._at_trained = found.head is not None
        self.score = (
            score.at_trained_positions(found)
            if self._at_trained
            else score.at_every_position(found, way=chosen["loss"])
        )
        self.notes = found.notes
        if self.prefix is not None and target > len(plan):
            size = words.size(found.position_bytes * sum(rows * width for rows, width in plan.shapes_of_groups))
            below = (
                "layer below the first trained one is"
                if found.layers_below == 1
                else (f"{found.layers_below} layers below the first trained one are")
            )
            self.notes += (
                f"the {below} computed once for each batch and kept, about {size} in all (`--prefix-cache`)",
            )

    def of(self, batch: Batch, *, uses: float) -> dict[str, mx.array]:
        """The arrays of a batch, and of each part the hidden state that enters the first trained layer.

        `uses` is how many times per iteration the batch is going to come again.
        """
        with self._profile.part("data"):
            arrays = score.arrays_of(batch, at_trained=self._at_trained)
        if self.prefix is not None:
            for name, tokens in batch.arrays.items():
                *part, last = name.split(".")
                if last == "tokens":
                    with self._profile.part("prefix"):
                        arrays[".".join([*part, "hidden"])] = self.prefix.of(tokens[:, :-1], uses=uses)
        return arrays

    @property
    def bytes_in_memory(self) -> int:
        """What hidden states take of the memory."""
        return 0 if self.prefix is None else self.prefix.bytes_in_memory

    def metrics(self) -> dict[str, float]:
        """What was kept and found since the last call."""
        return {} if self.prefix is None else self.prefix.metrics()
