"""What a job is told about where it works: the project and the switches of the environment, read once by the task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlxops.projects.project import Project


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The project a command was typed in, and what the environment says about it. Paths are absolute.

    `registry_is_given` says that the path of the registry is that of MLXOPS_DB; `blas` is MLXOPS_BLAS, `cache`
    MLXOPS_CACHE and `api_key` MLXOPS_API_KEY, None where they are not set; `command` is the command as typed.
    `background` is MLXOPS_BACKGROUND, in a process that was started in the background: the descriptor on which it
    reports to the process that waits for it.
    """

    project: Project
    registry_is_given: bool = False
    blas: str | None = None
    cache: Path | None = None
    api_key: str | None = None
    command: str | None = None
    background: int | None = None
