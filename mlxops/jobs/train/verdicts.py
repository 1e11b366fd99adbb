"""What `--verify-resume` found, as an event of the run that has these settings, or kept until there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mlxops import files, registry
from mlxops.errors import Failed
from mlxops.projects.project import Project
from mlxops.registry import JsonObject

KIND = "verify resume"


def record(project: Project, fingerprint: str, verdict: JsonObject) -> str | None:
    """Add a verdict to the history of the newest run of this fingerprint, and return that run's name.

    None where there is none: the verdict waits in `.mlxops/` for the run that `hand_over` gives it to.
    """
    path = project.registry_path
    if path.exists() and path.stat().st_size:
        with registry.open_registry(path) as db:
            for run in registry.candidate_runs(db):
                if run["fingerprint"] == fingerprint:
                    _add(db, run["id"], verdict)
                    return str(run["name"])
    _keep(project, {**_kept(project), fingerprint: dict(verdict)})
    return None


def hand_over(project: Project, db: registry.Registry, run_id: int, fingerprint: str) -> None:
    """Give a new run the verdict that waits for it."""
    kept = _kept(project)
    if verdict := kept.pop(fingerprint, None):
        _add(db, run_id, verdict)
        _keep(project, kept)


def _add(db: registry.Registry, run_id: int, verdict: JsonObject) -> None:
    steps, after = verdict["iterations"], verdict["interrupted_after"]
    how = "ends as one without a stop, bit for bit" if verdict["equal"] else "differs from one without a stop"
    registry.add_event(
        db,
        run_id,
        None,
        kind=KIND,
        level="info" if verdict["equal"] else "warning",
        message=f"a training of {steps} iterations, killed after {after} and resumed, {how} ({verdict['device']})",
        detail=verdict,
    )


def _kept(project: Project) -> dict[str, JsonObject]:
    try:
        kept = json.loads(_file(project).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(project: Project, verdicts: Mapping[str, JsonObject]) -> None:
    path = _file(project)
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, json.dumps(verdicts, indent=2) + "\n")
    except OSError as error:
        raise Failed(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _file(project: Project) -> Path:
    return project.root / ".mlxops" / "verified.json"
