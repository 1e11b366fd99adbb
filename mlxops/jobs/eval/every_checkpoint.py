"""All checkpoints of a run, to be tested one after the other."""

from __future__ import annotations

from mlxops import registry, words
from mlxops.config import TestConfig
from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.jobs.eval import loading
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.projects.invocation import Invocation
from mlxops.registry.places import run_and_place


def choose(invocation: Invocation, config: TestConfig) -> tuple[tuple[ChosenModel, ...], tuple[str, ...]]:
    """The checkpoints of the run that a person names, from old to new, and a note where some are damaged.

    Raises `BadRequest` where no run is named or one of its checkpoints is, `NotFound` where none is whole.
    """
    if config.run is None:
        raise BadRequest("--all-checkpoints takes the run they are of", hint="`--run latest` names the newest run")
    with registry.open_read_only(invocation.project.registry_path) as db:
        run, place = run_and_place(db, config.run)
        rows = registry.checkpoints_of(db, run["id"])
    name = str(run["name"])
    if place is not None:
        raise BadRequest(
            f"--run {config.run} names one checkpoint, and --all-checkpoints takes all", hint=f"`--run {name}`"
        )
    chosen, damaged = [], []
    for iteration in [row["iteration"] for row in rows if row["status"] == "whole"]:
        try:
            chosen.append(
                loading.choose(
                    invocation,
                    model=config.model or None,
                    adapter_path=config.adapter_path,
                    run=f"{name}:{iteration}",
                    trust_remote_code=config.trust_remote_code,
                )
            )
        except (Refused, NotFound) as error:
            damaged.append((iteration, error))
    if not chosen:
        raise (
            damaged[0][1]
            if damaged
            else NotFound(
                f"the run {name!r} has no whole checkpoint", hint=f"`inv checkpoints --run {name}` lists those it had"
            )
        )
    count = words.plural(len(damaged), "checkpoint")
    notes = (
        (f"{count} left out, first that of iteration {damaged[0][0]:,}: {damaged[0][1].message}",) if damaged else ()
    )
    return tuple(chosen), notes
