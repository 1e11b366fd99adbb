"""What the registry tells of one run. Reads; draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.jobs import commands
from mlxops.projects.invocation import Invocation
from mlxops.registry import (
    AttemptRow,
    BenchmarkSummaryView,
    CheckpointRow,
    EventView,
    FamilyMember,
    GivenAnswer,
    GivenVerdict,
    JsonObject,
    LossPoint,
    PartOfTime,
    RunSummaryView,
    ScoredEvaluation,
)
from mlxops.registry.opening import reading

_POINTS = 400  # of a curve, more than a terminal has columns
_ANSWERS = 5
_EVENTS = 50


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """One run in full. `defaults` are the toolkit's settings; `command` trains the run once more."""

    run: RunSummaryView
    config: JsonObject = field(default_factory=dict)
    defaults: JsonObject = field(default_factory=dict)
    command: str | None = None
    evaluations: Sequence[ScoredEvaluation] = ()
    answers: Sequence[GivenAnswer] = ()
    verdicts: Sequence[GivenVerdict] = ()
    benchmarks: Sequence[BenchmarkSummaryView] = ()
    profile: Sequence[PartOfTime] = ()
    lineage: Sequence[FamilyMember] = ()
    attempts: Sequence[AttemptRow] = ()
    checkpoints: Sequence[CheckpointRow] = ()
    curve: Sequence[LossPoint] = ()
    events: Sequence[EventView] = ()


def run(invocation: Invocation, name: str, defaults: LoraConfig) -> RunDetails:
    """One run in full; `latest` is the newest.

    `defaults` are the settings of a training without options, as the project has them: the command to repeat the run
    leaves them out.
    """
    with reading(invocation.project.registry_path) as db:
        found = registry.find_run(db, name)
        return RunDetails(
            run=registry.summary_of(db, found["id"]),
            config=found["config"],
            defaults=asdict(LoraConfig()),
            command=commands.again(invocation.project, found, asdict(defaults), commands.program(invocation)),
            evaluations=registry.evaluations_of(db, found["id"]),
            answers=registry.last_answers(db, found["id"], _ANSWERS),
            verdicts=registry.verdicts_of(db, found["id"]),
            benchmarks=registry.speeds_of(db, found["id"]),
            profile=registry.profile_of(db, found["id"]),
            lineage=registry.family_of(db, found["id"]),
            attempts=registry.attempts_of(db, found["id"]),
            checkpoints=registry.checkpoints_of(db, found["id"]),
            curve=registry.loss_curve(db, found["id"], buckets=_POINTS),
            events=registry.events_of(db, found["id"], last=_EVENTS),
        )
