"""Choosing what a run offers: `adapters.safetensors` becomes a copy of one of its checkpoints' weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mlxops import files, layout, registry
from mlxops.config import CheckpointsConfig
from mlxops.errors import BadRequest, Failed, NotFound, Refused
from mlxops.jobs.checkpoints.listing import imported
from mlxops.jobs.train import claim
from mlxops.projects.invocation import Invocation
from mlxops.registry import CheckpointRow, naming
from mlxops.registry.places import checkpoint_at, run_and_place
from mlxops.training import checkpoints, lock


@dataclass(frozen=True, kw_only=True)
class OfferedWeights:
    """What a run offers now: the iteration, the file that programs load, and its SHA-256."""

    run: str
    iteration: int
    file: str
    validation_loss: float | None
    sha256: str


def use(invocation: Invocation, config: CheckpointsConfig) -> OfferedWeights:
    """Make `best`, `last` or an iteration of a run what it offers, and record it. Returns what is offered now.

    The file is exchanged whole and before the row. Raises `Refused` for a checkpoint that is damaged, `NotFound` for
    one that is pruned or was never there, `Busy` while the run trains.
    """
    project = invocation.project
    wanted = _wanted(config)
    if not invocation.project.registry_path.exists():
        raise NotFound("there are no runs yet", hint="`inv lora --model MODEL --data DATA` starts the first")
    with registry.open_registry(invocation.project.registry_path) as db:
        run, place = run_and_place(db, wanted)
        if place is None:
            raise BadRequest("--use takes a checkpoint", hint=f"`inv checkpoints --use {quote(run['name'])}:best`")
        name, folder = run["name"], project.from_root(run["adapter_path"])
        if run["imported_from"] is not None:
            raise imported(project, name, run["imported_from"])
        if not folder.is_dir():
            raise NotFound(f"the folder {run['adapter_path']!r} of the run {name!r} is gone")
        with lock.hold(folder / lock.NAME, claim.holder(invocation.command or ""), what=f"the run {name!r}"):
            row = checkpoint_at(db, run, place)
            _check(folder, row, name)
            try:
                checkpoints.offer_file(folder / row["adapter_file"])
            except OSError as error:
                raise Failed(f"the run's folder {str(folder)!r} cannot be written: {error.strerror}") from error
            message = f"offers iteration {row['iteration']:,} ({place})"
            registry.offer_checkpoint(db, run["id"], row["iteration"], message=message)
    return OfferedWeights(
        run=name,
        iteration=row["iteration"],
        file=f"{run['adapter_path']}/{layout.OFFERED}",
        validation_loss=row["validation_loss"],
        sha256=row["adapter_sha256"],
    )


def _wanted(config: CheckpointsConfig) -> str:
    """What is asked for as RUN:PLACE."""
    wanted = config.use or ""
    if config.run is not None:
        if naming.place_of(wanted) is None:
            hint = f"`inv checkpoints --use {quote(config.run)}:best`"
            raise BadRequest(f"--use takes best, last or an iteration, not {wanted!r}", hint=hint)
        return f"{config.run}:{wanted}"
    if ":" not in wanted:
        meant = f"latest:{wanted}" if wanted in ("best", "last") else f"{wanted}:best"
        hint = f"`inv checkpoints --use {quote(meant)}`"
        raise BadRequest("--use needs the run whose checkpoint it is", hint=hint)
    return wanted


def _check(folder: Path, row: CheckpointRow, name: str) -> None:
    """Raise `Refused` unless the weights are what was written."""
    problem = files.problem(folder / row["adapter_file"], row["adapter_sha256"])
    if problem:
        raise Refused(
            f"the run {name!r}: {problem}",
            hint=f"`inv checkpoints --verify --run {name}` tells which are whole",
        )
