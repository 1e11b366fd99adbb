"""Whether the disk and the memory are good enough for a training that is about to begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlxops import words
from mlxops.errors import Failed
from mlxops.events import Listener, Notice
from mlxops.jobs.train import memory
from mlxops.projects import diagnosis, examination, machine
from mlxops.projects.project import Project
from mlxops.training.retention import checkpoint_bytes, checkpoints_to_come

if TYPE_CHECKING:
    import mlx.core as mx

    from mlxops.jobs.train.claim import Claim
    from mlxops.jobs.train.environment import Environment
    from mlxops.jobs.train.prepare import Prepared


def check_disk(prepared: Prepared, claim: Claim, trainable: Mapping[str, mx.array], emit: Listener) -> None:
    """Raise `Failed` where two checkpoints do not fit on the disk; say so where not all that are to come do."""
    size = checkpoint_bytes(prepared.config, trainable)
    count = checkpoints_to_come(prepared.config, claim.iteration, prepared.target)
    free = machine.free_disk(claim.folder)
    if free < 2 * size:
        raise Failed(
            f"a checkpoint takes about {words.size(size)} and {str(claim.folder)!r} has {words.size(free)} free",
            hint="make room, or name another `--adapter-path`",
        )
    if free < (count + 1) * size:
        to_come = f"{words.plural(count, 'checkpoint')} of about {words.size(size)}"
        message = f"{words.size(free)} are free for {to_come}: a larger --save-every writes fewer"
        emit(Notice(kind="disk", message=message, level="warning"))


def check_memory(prepared: Prepared, environment: Environment, emit: Listener) -> None:
    """Say so where the largest batch takes more memory than is free. The model is loaded already."""
    found = memory.of_attempt(prepared, environment)
    free = memory.room() + memory.in_use()
    if found.peak > free:
        there = "are free" if environment.device == "cpu" else "are there for the GPU"
        taken = f"the largest batch takes about {words.size(found.peak)} of memory, and {words.size(free)} {there}"
        hint = "a smaller --batch-size or --max-seq-length, or --grad-checkpoint, takes less"
        emit(Notice(kind="memory", message=f"{taken}: {hint}", level="warning"))


def check_place(project: Project, emit: Listener) -> None:
    """Say so where the registry is in a folder that another program copies to other machines."""
    place = examination.place_here(project.registry_path.parent)
    if place.synced_by is not None:
        found = diagnosis.check_place(place)
        emit(Notice(kind="place", message=f"{found.said}: {found.cure}", level="warning"))
