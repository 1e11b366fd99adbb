"""Where a training may keep the hidden states that enter its first trained layer, and how much of them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from mlxops.jobs.train import memory
from mlxops.projects import machine
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.jobs.train.environment import Environment
    from mlxops.jobs.train.prepare import Prepared
    from mlxops.training.prefix import Room

_GIB = 2**30
_LEFT = 2 * _GIB
"""Bytes of the disk that stay free."""


def room(project: Project, prepared: Prepared, environment: Environment) -> Room:
    """Half of the memory that the training leaves free, then the disk, up to `--prefix-cache` in all.

    The model is loaded already.
    """
    from mlxops.training.prefix import Room

    config = prepared.config
    limit = int(config.prefix_cache * _GIB)
    taken = memory.of_attempt(prepared, environment).peak
    free = memory.room() + memory.in_use()
    if config.memory_limit is not None:
        free = min(free, int(config.memory_limit * _GIB))
    in_memory = min(limit, max(0, free - taken) // 2)
    folder = project.prefix_folder / prepared.fingerprint[:16]
    there = sum(each.stat().st_size for each in folder.glob("*")) if folder.is_dir() else 0
    on_disk = min(limit - in_memory, max(0, machine.free_disk(project.root) + there - _LEFT))
    depends_on = {"model": prepared.model_identity, "run": prepared.fingerprint, **environment.exact}
    return Room(
        memory=in_memory,
        disk=on_disk,
        folder=folder,
        identity=json.dumps(depends_on, sort_keys=True),
    )


def remove(project: Project, prepared: Prepared) -> None:
    """Remove what is kept for a run that has come to its end."""
    shutil.rmtree(project.prefix_folder / prepared.fingerprint[:16], ignore_errors=True)
