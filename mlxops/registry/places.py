"""What RUN, RUN:best, RUN:last and RUN:ITERATION name: a run, and one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from mlxops.registry import naming
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
    name, place = naming.split_place(text, [name for (name,) in db.connection.execute("SELECT name FROM runs")])
    run = find_run(db, name)
    if place is None:
        return Place(run=run)
    whole = [row for row in checkpoints_of(db, run["id"]) if row["status"] == "whole"]
    iterations = [row["iteration"] for row in whole]
    if place == "best":
        found = [row["iteration"] for row in whole if row["is_best"]]
    elif place == "last":
        found = iterations[-1:]
    else:
        found = [int(place)] if int(place) in iterations else []
    if not found:
        raise naming.missing_place(run["name"], place, iterations)
    return Place(run=run, iteration=found[-1])
