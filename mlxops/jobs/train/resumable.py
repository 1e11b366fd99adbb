"""A run that a command may resume, be it known from the registry or from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlxops.adapters.adapter_config import DescribedRun
from mlxops.projects.project import Project
from mlxops.registry import CandidateRun, FoundRun, JsonObject


@dataclass(frozen=True, kw_only=True)
class ResumableRun:
    """What a decision needs of a run; `id` is None where no row of the registry points to its folder."""

    id: int | None
    name: str
    status: str
    fingerprint: str
    config: JsonObject
    model: str
    model_identity: str
    data: str
    data_identity: str
    iteration: int
    target_iterations: int
    adapter_path: str


def of_registry(row: CandidateRun | FoundRun) -> ResumableRun:
    """The run as the registry has it."""
    return ResumableRun(
        id=row["id"],
        name=row["name"],
        status=row["status"],
        fingerprint=row["fingerprint"],
        config=row["config"],
        model=row["model"],
        model_identity=row["model_identity"],
        data=row["data"],
        data_identity=row["data_identity"],
        iteration=row["iteration"],
        target_iterations=row["target_iterations"],
        adapter_path=row["adapter_path"],
    )


def of_folder(project: Project, folder: Path, run: DescribedRun) -> ResumableRun:
    """The run as its folder describes it."""
    return ResumableRun(
        id=None,
        name=run["name"],
        status="",
        fingerprint=run["fingerprint"],
        config=run["config"],
        model=run["model"],
        model_identity=run["model_identity"],
        data=run["data"],
        data_identity=run["data_identity"],
        iteration=0,
        target_iterations=run["target"],
        adapter_path=project.relative(folder),
    )
