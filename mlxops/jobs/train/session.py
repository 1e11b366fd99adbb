"""Training from the first check to the last line: what the task `lora` calls, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlxops import registry, words
from mlxops.analysis.trend import WINDOW
from mlxops.config import LoraConfig
from mlxops.data.tokens import Example
from mlxops.events import Event, Listener, Saved, Stopped
from mlxops.jobs.train import claim as claims
from mlxops.jobs.train import environment, fine_tune, memory, verdicts
from mlxops.jobs.train.candidates import is_done, probable_run
from mlxops.jobs.train.claim import Claim
from mlxops.jobs.train.prepare import Prepared, Progress, prepare
from mlxops.models.memory import TrainingMemory
from mlxops.projects import kernels, known_projects, machine
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import retention
from mlxops.training.decide import NO_SUCH_RUN


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that is checked and can be previewed or begun."""

    invocation: Invocation
    project: Project
    prepared: Prepared


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that this process holds. `work` trains it; a finished one has nothing left to do."""

    training: Training
    db: registry.Registry
    claim: Claim

    @property
    def is_finished(self) -> bool:
        """Whether the target is reached already."""
        return self.claim.decision.kind == "finished"

    @property
    def iteration(self) -> int:
        """Where it continues."""
        return self.claim.iteration

    @property
    def lines(self) -> tuple[str, ...]:
        """What to say before the first step."""
        decision, where = self.claim.decision, self.training.project.relative(self.claim.folder)
        prepared = self.training.prepared
        how = decision.reason
        if decision.kind == "new":
            how = "new run" if how == NO_SUCH_RUN else f"new run: {how}"
        return (f"run {self.claim.name} in {where}: {how}", *_like(decision), *prepared.lines, *prepared.notes)

    def curve(self) -> list[registry.LossPoint]:
        """The losses up to where it continues."""
        rows = registry.loss_curve(self.db, self.claim.run_id, buckets=1000)
        return [row for row in rows if row["iteration"] <= self.iteration and self.iteration > 0]

    def recent(self) -> list[tuple[int, float]]:
        """The iterations and train losses of the newest reports up to where it continues, as many as a trend takes."""
        points = registry.last_points(self.db, self.claim.run_id, "train_loss", WINDOW)
        return [point for point in points if point[0] <= self.iteration]

    @property
    def seconds(self) -> float:
        """The time at work of the attempts before."""
        return registry.summary_of(self.db, self.claim.run_id)["seconds"] or 0.0

    def work(self, listeners: Sequence[Listener] = (), before_leaving: Any = None) -> Stopped:
        """Train to the target; see `fine_tune.fine_tune` for what it raises."""
        invocation, prepared = self.training.invocation, self.training.prepared
        cache = invocation.cache or machine.user_cache()
        chosen = environment.set_up(prepared, self.claim, cache=cache, blas_setting=invocation.blas)
        if invocation.command is not None:  # a trial of `--verify-resume` is in a folder that is removed
            known_projects.remember(cache, self.training.project.root)
        with kernels.kept(cache) as keep:

            def keep_kernels(event: Event) -> None:
                if isinstance(event, Saved):
                    keep()

            return fine_tune.fine_tune(
                self.training.project,
                self.db,
                prepared,
                self.claim,
                chosen,
                command=invocation.command or "",
                listeners=[*listeners, keep_kernels],
                before_leaving=before_leaving,
            )

    def summary(self) -> registry.RunSummaryView:
        """The run's row of `run_summary`."""
        # a registry that was replaced meanwhile gives the run another number
        place = self.training.project.relative(self.claim.folder)
        return next(
            row for row in registry.list_runs(self.db) if row["adapter_path"] == place and row["imported_from"] is None
        )


def check(invocation: Invocation, config: LoraConfig, progress: Progress) -> Training:
    """Check everything that can be checked before anything is written."""
    project = invocation.project
    prepared = prepare(project, config, progress)
    run = probable_run(project, prepared)
    if run is None or not is_done(run, prepared):
        automatic = run.config.get("automatic", {}) if run else {}
        cache = invocation.cache or machine.user_cache()
        fine_tune.rehearse(prepared, automatic, cache=cache, blas_setting=invocation.blas)
    return Training(invocation=invocation, project=project, prepared=prepared)


@contextmanager
def begin(training: Training) -> Iterator[Begun]:
    """Decide which run is meant and hold it while the block runs."""
    with (
        registry.open_registry(training.project.registry_path) as db,
        claims.claim(training.project, db, training.prepared, training.invocation.command or "") as claim,
    ):
        if claim.decision.kind == "new":
            verdicts.hand_over(training.project, db, claim.run_id, training.prepared.fingerprint)
        yield Begun(training=replace(training, prepared=claim.prepared), db=db, claim=claim)


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """A setting of the most similar run, and the one asked for."""

    setting: str
    there: Any
    asked_for: Any


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What beginning would do: the decision, the tokens of an epoch, disk and memory in bytes.

    `exit_code` is that of the refusal that beginning would end with, 0 where it would begin or has nothing to do.
    """

    decision: str
    exit_code: int
    run: str | None
    reason: str
    hint: str | None
    iteration: int
    target: int
    similar: str | None
    differences: Sequence[SettingDifference]
    batches_an_epoch: int
    tokens_an_epoch: int
    rows: int
    validation_rows: int
    trainable_parameters: int
    checkpoint_bytes: int
    checkpoints_to_come: int
    disk_bytes: int
    disk_free_bytes: int
    memory_bytes: int
    memory_free_bytes: int
    memory: TrainingMemory
    fingerprint: str
    examples: Sequence[Example]
    notes: Sequence[str]


def preview(training: Training) -> Preview:
    """What beginning would do, without doing it."""
    from mlxops.models.loading import load_model
    from mlxops.training import layers

    outlook = claims.preview(training.project, training.prepared)
    decision, prepared, refusal = outlook.decision, outlook.prepared, outlook.refusal
    does_nothing = decision.kind == "finished" or refusal is not None
    model, _ = load_model(prepared.model_folder, lazy=True, trust_remote_code=prepared.config.trust_remote_code)
    trainable = layers.trainable(layers.prepare(model, prepared.config))
    size = retention.checkpoint_bytes(prepared.config, trainable)
    count = retention.checkpoints_to_come(prepared.config, decision.iteration, prepared.target)
    device = machine.device()["kind"]
    needed = memory.estimate(prepared, dtype=environment.dtype_of(prepared.config, device), device=device)
    return Preview(
        decision="refuse" if refusal else decision.kind,
        exit_code=refusal.exit_code if refusal else 0,
        run=decision.run,
        reason=refusal.message if refusal else decision.reason,
        hint=refusal.hint if refusal else decision.hint,
        iteration=decision.iteration,
        target=prepared.target,
        similar=decision.similar,
        differences=[
            SettingDifference(setting=name, there=there, asked_for=asked) for name, there, asked in decision.differences
        ],
        batches_an_epoch=len(prepared.plan),
        tokens_an_epoch=prepared.tokens_an_epoch,
        rows=len(prepared.train.rows),
        validation_rows=len(prepared.validation.rows) if prepared.validation else 0,
        trainable_parameters=sum(value.size for value in trainable.values()),
        checkpoint_bytes=size,
        checkpoints_to_come=0 if does_nothing else count,
        disk_bytes=0 if does_nothing else size * count,
        disk_free_bytes=machine.free_disk(training.project.root),
        memory_bytes=needed.peak,
        memory_free_bytes=memory.room(),
        memory=needed,
        fingerprint=prepared.fingerprint,
        examples=prepared.train.examples,
        notes=[*prepared.lines, *prepared.notes],
    )


def _like(decision: Any) -> tuple[str, ...]:
    """The most similar unfinished run and where it differs, for someone who meant to resume it."""
    if decision.similar is None:
        return ()
    differences = [f"{name} {there!r} → {asked!r}" for name, there, asked in map(_short, decision.differences)]
    return (f"the unfinished run most like it is {decision.similar}, which differs in {words.listed(differences, 3)}",)


def _short(difference: tuple[str, Any, Any]) -> tuple[str, Any, Any]:
    name, there, asked = difference
    if name.endswith(("_identity", "_sha256")):
        return name, there and str(there)[:12], asked and str(asked)[:12]
    return difference
