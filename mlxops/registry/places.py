"""What RUN, RUN:best, RUN:last and RUN:ITERATION name: a run, and one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from mlxops.errors import BadRequest, NotFound
from mlxops.registry.checkpoints import checkpoints_of
from mlxops.registry.database import Registry
from mlxops.registry.runs import FoundRun, find_run


@dataclass(frozen=True, kw_only=True)
class Place:
    """A run's row, and the iteration of one of its checkpoints; None for the adapter that its folder offers."""

    run: FoundRun
    iteration: int | None = None


def find_place(db: Registry, text: str) -> Place:
    """The run and the checkpoint that a person names.

    Raises `NotFound` for what is not there, and `BadRequest` for a text that names no place.
    """
    name, colon, word = text.rpartition(":")
    if not colon:
        return Place(run=find_run(db, text))
    run = find_run(db, name)
    whole = [row for row in checkpoints_of(db, run["id"]) if row["status"] == "whole"]
    iterations = [row["iteration"] for row in whole]
    if word == "best":
        found = [row["iteration"] for row in whole if row["is_best"]]
    elif word == "last":
        found = iterations[-1:]
    elif word.isdecimal():
        found = [int(word)] if int(word) in iterations else []
    else:
        raise BadRequest(
            f"{text!r} names no checkpoint", hint="RUN, RUN:ITERATION, RUN:best and RUN:last name one of a run"
        )
    if not found:
        what = f"checkpoint of iteration {int(word):,}" if word.isdecimal() else f"{word} checkpoint"
        there = ", ".join(map(str, iterations[-5:]))
        hint = (
            f"its last ones are of iteration {there}" if there else f"`inv checkpoints --run {name}` shows its folder"
        )
        raise NotFound(f"the run {run['name']!r} has no {what}", hint=hint)
    return Place(run=run, iteration=found[-1])
