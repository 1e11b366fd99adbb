"""What a job is told about where it works: paths and switches, read once by the task and passed on as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The folder a command was typed in, its project, and the environment's say in it. Paths are absolute.

    `registry_is_given` says that the registry's path is MLXOPS_DB's; `blas` is MLXOPS_BLAS and `cache` MLXOPS_CACHE,
    None where they are not set; `command` is the command as typed. `background` is MLXOPS_BACKGROUND, in a process that
    was started in the background: the descriptor on which it tells the one that waits for it.
    """

    cwd: Path
    root: Path
    registry_path: Path
    registry_is_given: bool = False
    blas: str | None = None
    cache: Path | None = None
    command: str | None = None
    background: int | None = None
