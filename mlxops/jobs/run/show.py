"""What the registry tells of one run. Reads; draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.errors import NotFound
from mlxops.jobs import commands
from mlxops.jobs.train.resume import INHERITED
from mlxops.projects.invocation import Invocation
from mlxops.registry import (
    AttemptRow,
    BenchmarkSummaryView,
    CheckpointRow,
    EventView,
    FamilyMember,
    FoundRun,
    GivenAnswer,
    GivenVerdict,
    JsonObject,
    LossPoint,
    PartOfTime,
    Registry,
    RunSummaryView,
    ScoredEvaluation,
)
from mlxops.registry.opening import reading
from mlxops.training.fingerprint import complete
from mlxops.training.origin import origin_of

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


def run(invocation: Invocation, name: str) -> RunDetails:
    """One run in full; `latest` is the newest."""
    with reading(invocation.project.registry_path) as db:
        found = registry.find_run(db, name)
        return RunDetails(
            run=registry.summary_of(db, found["id"]),
            config=found["config"],
            defaults=asdict(LoraConfig()),
            command=commands.again(invocation.project, found, _defaults(db, found), commands.program(invocation)),
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


def _defaults(db: Registry, run: FoundRun) -> JsonObject:
    """What a command takes for settings that it does not give: the toolkit's, and for a branch those of its parent."""
    usual = asdict(LoraConfig())
    origin = origin_of(run["config"])
    if origin is None or origin.run is None:
        return usual
    try:
        parent = complete(registry.find_run(db, origin.run)["config"])
    except NotFound:
        return usual
    # model and data are always named: the parent may have found them in another place
    return usual | {name: parent[name] for name in INHERITED if name in parent and name not in ("model", "data")}
