"""What the registry tells of one run. Reads; draws nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.jobs import commands
from mlxops.projects.invocation import Invocation
from mlxops.registry import Registry
from mlxops.registry.opening import reading

_POINTS = 400  # of a curve, more than a terminal has columns
_ANSWERS = 5


def run(invocation: Invocation, name: str, defaults: LoraConfig) -> dict[str, Any]:
    """One run in full, as `ui.show.run` takes it; `latest` is the newest.

    `defaults` are the settings of a training without options, as the project has them: the command to repeat the run
    leaves them out.
    """
    with reading(invocation.project.registry_path) as db:
        found = registry.find_run(db, name)
        return {
            "run": registry.summary_of(db, found["id"]),
            "config": found["config"],
            "defaults": asdict(LoraConfig()),
            "command": commands.again(invocation.project, found, asdict(defaults), commands.program(invocation)),
            "evaluations": registry.evaluations_of(db, found["id"]),
            "answers": registry.last_answers(db, found["id"], _ANSWERS),
            "lineage": registry.family_of(db, found["id"]),
            **_details(db, found["id"], last_events=50),
        }


def _details(db: Registry, run_id: int, *, last_events: int) -> dict[str, Any]:
    return {
        "attempts": registry.attempts_of(db, run_id),
        "checkpoints": registry.checkpoints_of(db, run_id),
        "curve": registry.loss_curve(db, run_id, buckets=_POINTS),
        "events": registry.events_of(db, run_id, last=last_events),
    }
