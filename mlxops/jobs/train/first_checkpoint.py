"""Beginning a run with weights that another run or another program trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops import files, layout
from mlxops.adapters import foreign
from mlxops.errors import Failed
from mlxops.events import Listener, Notice
from mlxops.jobs.train import adopt, recover
from mlxops.projects.project import Project
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint
from mlxops.training.origin import Origin

if TYPE_CHECKING:
    from mlxops.training.step import Arrays, Work


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a run begins with, read and verified: the weights and, where it continues, the optimizer's state."""

    origin: Origin
    weights: Arrays
    optimizer: Arrays | None


def read(project: Project, origin: Origin, trainable: Arrays) -> Beginning:
    """Read what a run begins with.

    Raises `Failed` where it is not what it was when that was decided, and `InvalidData` where it does not fit.
    """
    from mlxops.training import first_checkpoint

    path = adopt.source(project, origin)
    _verify(path, origin.adapter_sha256)
    weights = first_checkpoint.read_weights(path)
    shapes = {name: value.shape for name, value in weights.items()}
    adopt.raise_misfits(
        path.name, first_checkpoint.misfits(shapes, {name: each.shape for name, each in trainable.items()})
    )
    optimizer = None
    if origin.state_sha256 is not None:
        state = project.from_root(origin.folder) / layout.state_name(origin.iteration)
        _verify(state, origin.state_sha256)
        optimizer = first_checkpoint.read_optimizer(state)
    return Beginning(origin=origin, weights=weights, optimizer=optimizer)


def keep_originals(folder: Path, origin: Origin) -> None:
    """Keep what another program left in the run's folder and what the run is going to write over."""
    if origin.kind == "branch":
        return
    try:
        foreign.keep_originals(folder, origin.iteration)
    except OSError as error:
        raise recover.cannot_write(folder, error) from error


def begin(work: Work, begun: Beginning, emit: Listener) -> Work:
    """Write the run's first checkpoint, and have the training resume from it as from any other."""
    from mlxops.training import first_checkpoint

    origin = begun.origin
    saved, goes_on = first_checkpoint.write(
        work, begun.weights, begun.optimizer, iteration=origin.iteration, trained_tokens=origin.trained_tokens
    )
    emit(saved)
    if begun.optimizer is not None and not goes_on:
        message = "the parent's optimizer has other arrays than this run's, so it starts fresh"
        emit(Notice(kind="optimizer", message=message, iteration=origin.iteration))
    start = checkpoints.read(work.folder, origin.iteration, fingerprint=work.fingerprint)
    if not isinstance(start, Checkpoint):
        raise Failed(
            f"the run's first checkpoint cannot be used: {start.reason}",
            hint="the same command begins once more; `--adapter-path` names another folder",
        )
    return replace(work, start=start)


def _verify(path: Path, sha256: str) -> None:
    if problem := files.problem(path, sha256):
        raise Failed(
            f"this run begins with {str(path)!r}, and {problem}",
            hint="`--new` begins with what is there now",
        )
