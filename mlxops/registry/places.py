"""What RUN, RUN:best, RUN:last and RUN:ITERATION name: a run, and one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from mlxops.errors import NotFound
from mlxops.registry import naming
from mlxops.registry.checkpoints import checkpoints_of
from mlxops.registry.database import Registry
from mlxops.registry.naming import Place
from mlxops.registry.rows import CheckpointRow
from mlxops.registry.runs import FoundRun, find_run

_IN_WORDS = {"corrupt": "damaged", "missing": "gone", "pruned": "pruned"}


@dataclass(frozen=True, kw_only=True)
class FoundPlace:
    """A run's row, and that of one of its checkpoints; None for the adapter that its folder offers.

    `written` has the SHA-256 of every checkpoint of the run: what is offered is a copy of one of them.
    """

    run: FoundRun
    checkpoint: CheckpointRow | None = None
    written: frozenset[str] = frozenset()

    @property
    def iteration(self) -> int | None:
        """The checkpoint's iteration."""
        return None if self.checkpoint is None else self.checkpoint["iteration"]


def find_place(db: Registry, text: str) -> FoundPlace:
    """The run and the checkpoint that a person names.

    Raises `NotFound` for what is not there, and `BadRequest` for a text that names no place.
    """
    run, place = run_and_place(db, text)
    return FoundPlace(
        run=run,
        checkpoint=None if place is None else checkpoint_at(db, run, place),
        written=frozenset(row["adapter_sha256"] for row in checkpoints_of(db, run["id"])),
    )


def run_and_place(db: Registry, text: str) -> tuple[FoundRun, Place | None]:
    """The run that a person names, and which of its checkpoints, without looking whether it has that one.

    Raises as `find_place` does.
    """
    name, place = naming.split_place(text, [name for (name,) in db.connection.execute("SELECT name FROM runs")])
    return find_run(db, name), place


def checkpoint_at(db: Registry, run: FoundRun, place: Place) -> CheckpointRow:
    """The row of a checkpoint that is whole as far as the registry knows; raises `NotFound` with those there are."""
    rows, name = checkpoints_of(db, run["id"]), run["name"]
    whole = [row for row in rows if row["status"] == "whole"]
    if place == "best":
        found = [row for row in whole if row["is_best"]]
    elif place == "last":
        found = whole[-1:]
    else:
        found = [row for row in rows if row["iteration"] == place]
    there = [row["iteration"] for row in whole]
    if not found:
        raise naming.missing_place(name, place, there)
    if found[0]["status"] != "whole":
        what = f"the checkpoint at iteration {found[0]['iteration']:,} of the run {name!r}"
        raise NotFound(f"{what} is {_IN_WORDS[found[0]['status']]}", hint=naming.choice(name, there))
    return found[0]
