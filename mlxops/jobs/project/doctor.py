"""What is wrong with the machine, the environment and the project, and the cures that are safe.

Gathered, judged, shown; with `--fix` cured, and then looked at again. Without it nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxops import registry, words
from mlxops.config import CheckpointsConfig
from mlxops.errors import Failed, MlxopsError
from mlxops.jobs.checkpoints import verify
from mlxops.jobs.checkpoints.listing import CheckpointFolder, ListedCheckpoint, listing
from mlxops.projects import diagnosis, environment, examination, packages
from mlxops.projects.diagnosis import Finding
from mlxops.projects.invocation import Invocation
from mlxops.registry import RegistryHealth

Progress = Callable[[str, int, int], None]

_BUDGET = 2 * 10**9  # bytes of checkpoints that are read through: what a resume takes first, then the newest
_PATIENCE = 5.0  # seconds that a cure waits for whoever writes to the registry

MIGRATE, CLOSE, RECORD, SHOW = "migrate the registry", "close dead runs", "record damage", "show hidden files"


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What looking at the checkpoints found: how many there are, how many of them were read through.

    `damaged` are those that are recorded as whole and are not, `foreign` damaged adapters of other programs, `known`
    how many are recorded as damaged; `error` is why they could not be looked at.
    """

    checkpoints: int = 0
    read: int = 0
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    known: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, and what `--fix` did before."""

    findings: tuple[Finding, ...]
    done: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Those of something that does not work."""
        return tuple(each for each in self.findings if each.level == "broken")


def diagnose(invocation: Invocation, progress: Progress) -> Diagnosis:
    """Look at everything; nothing is written. `progress` hears how far it is."""
    facts = examination.examine(invocation, lambda done, of: progress("looking at the machine", done, of))
    around = tuple(diagnosis.judge(facts))
    return Diagnosis(findings=(*around, *_of_the_project(invocation, progress)))


def _of_the_project(invocation: Invocation, progress: Progress) -> tuple[Finding, ...]:
    health = registry.health(invocation.project.registry_path)
    facts = checkpoint_facts(invocation, health, progress)
    return check_registry(health), check_runs(health), check_checkpoints(facts)


def cure(invocation: Invocation, found: Diagnosis, progress: Progress) -> Diagnosis:
    """Do the safe cures of what was found, and look again: one may show what it hid. What was done is told."""
    done: list[str] = []
    tried: set[str] = set()
    while fixes := [each.fix for each in found.findings if each.fix is not None and each.fix not in tried]:
        tried.update(fixes)
        done += [_CURES[fix](invocation, progress) for fix in fixes]
        if SHOW in fixes:
            found = diagnose(invocation, progress)
        else:  # machine and environment are as they were
            *around, _, _, _ = found.findings
            found = Diagnosis(findings=(*around, *_of_the_project(invocation, progress)))
    return Diagnosis(findings=found.findings, done=tuple(done))


def check(found: Diagnosis) -> None:
    """Raise `Failed` where something is broken; warnings are none of that."""
    if found.broken:
        names = ", ".join(each.check for each in found.broken)
        can_fix = any(each.fix for each in found.findings)
        raise Failed(
            f"{words.plural(len(found.broken), 'check')} of {len(found.findings)} failed: {names}",
            hint="`inv doctor --fix` does the safe cures" if can_fix else "the lines above say what helps",
        )


# the registry and what it knows of -----------------------------------------------------------------------------------


def check_registry(health: RegistryHealth) -> Finding:
    """Whether the registry can be read, is whole and is of this version."""
    if not health.is_there:
        return Finding(check="registry", level="ok", said="none yet: the first training makes it")
    if health.error is not None:
        return Finding(check="registry", level="broken", said=health.error, cure=health.hint)
    if health.problems:
        more = f" and {len(health.problems) - 1} more" if health.problems[1:] else ""
        cure = f"sqlite3 {health.path} .recover saves what can be read; .mlxops/backups may hold a copy"
        said = f"{health.path} is damaged: {health.problems[0]}{more}"
        return Finding(check="registry", level="broken", said=said, cure=cure)
    if health.schema < health.newest_schema:
        return Finding(
            check="registry",
            level="warning",
            said=f"it has schema {health.schema}, and this mlxops writes {health.newest_schema}",
            cure="the next command that opens it migrates it, after a copy to .mlxops/backups",
            fix=MIGRATE,
        )
    return Finding(check="registry", level="ok", said=f"whole, schema {health.schema}, {words.size(health.bytes)}")


def check_runs(health: RegistryHealth) -> Finding:
    """Whether runs are recorded as at work whose process is gone."""
    if health.error is not None:
        return Finding(check="runs", level="ok", said="not looked at: the registry cannot be read")
    if health.dead:
        said = f"{words.listed(health.dead, 3)}: recorded as running, but the process is dead"
        cure = "`inv runs` or `inv doctor --fix` records it; the command that started the run resumes it"
        return Finding(check="runs", level="warning", said=said, cure=cure, fix=CLOSE)
    if health.silent:
        said = f"{words.listed(health.silent, 3)}: no sign of life for a minute, from here or another machine"
        return Finding(check="runs", level="warning", said=said, cure="`inv monitor` says whether its process is alive")
    return Finding(check="runs", level="ok", said="none is lost")


def checkpoint_facts(invocation: Invocation, health: RegistryHealth, progress: Progress) -> CheckpointFacts:
    """Look at every checkpoint, and read through as many as may be, those first that a resume would take."""
    if health.is_there and not health.is_current:
        return CheckpointFacts(error="not looked at: the registry must be in order first")
    try:
        return _look(invocation, progress)
    except MlxopsError as error:
        return CheckpointFacts(error=error.message)
    except ModuleNotFoundError as error:  # a global installation does without what reads them
        return CheckpointFacts(error=f"not looked at: the package {error.name} is not installed")


def _look(invocation: Invocation, progress: Progress) -> CheckpointFacts:
    found = listing(invocation, CheckpointsConfig(), opened=registry.open_read_only)
    items = [(group, item) for group in found.groups for item in group.items if item.state != "pruned"]
    order = sorted(range(len(items)), key=lambda place: (not items[place][1].is_next, place))
    problems: dict[int, str] = {}
    done = read = known = 0
    for place in order:
        group, item = items[place]
        if verify.is_known_gone(item) or item.status in ("corrupt", "missing"):
            known += 1
            continue
        if done + item.bytes > _BUDGET:
            problem = item.problem or item.state if item.state in ("damaged", "missing") else None
        else:
            result = verify.read_through(invocation.project.from_root(group.folder), group, item, lambda _: None)
            problem = result.reason if result.result in ("damaged", "missing") else None
            done, read = done + item.bytes, read + 1
            progress("reading checkpoints", read, len(items))
        if problem is not None:
            problems[place] = problem
    told = [
        (_is_of_a_run(items[place][0]), _named(*items[place], problem))
        for place, problem in problems.items()
        if not _was_pruned(invocation, *items[place])
    ]
    return CheckpointFacts(
        checkpoints=len(items),
        read=read,
        damaged=tuple(said for is_ours, said in told if is_ours),
        foreign=tuple(said for is_ours, said in told if not is_ours),
        known=known,
    )


def _is_of_a_run(group: CheckpointFolder) -> bool:
    return group.kind in ("run", "imported", "unknown run")


def _named(group: CheckpointFolder, item: ListedCheckpoint, problem: str) -> str:
    at = "" if item.iteration is None else f" iteration {item.iteration:,}"
    return f"{group.run or group.folder}{at}: {problem}"


def _was_pruned(invocation: Invocation, group: CheckpointFolder, item: ListedCheckpoint) -> bool:
    """Whether a training at work has removed it meanwhile, which is no damage."""
    if group.run is None or item.status is None:
        return False
    with registry.open_read_only(invocation.project.registry_path) as db:
        run_id = registry.id_of(db, group.run)
        rows = [] if run_id is None else registry.checkpoints_of(db, run_id)
    now = {row["iteration"]: row["status"] for row in rows}
    return now.get(item.iteration or 0, "pruned") == "pruned"


def check_checkpoints(facts: CheckpointFacts) -> Finding:
    """Whether checkpoints are what was written."""
    if facts.error is not None:
        return Finding(check="checkpoints", level="warning", said=facts.error, cure="what the lines above say")
    damaged = facts.damaged or facts.foreign
    if damaged:
        more = f" and {len(damaged) - 1} more" if damaged[1:] else ""
        return Finding(
            check="checkpoints",
            level="broken" if facts.damaged else "warning",
            said=f"{damaged[0]}{more}",
            cure="a resume takes the one before; `inv debug-checkpoints` explains, `inv doctor --fix` records it"
            if facts.damaged
            else "`inv debug-checkpoints FOLDER` explains it",
            fix=RECORD if facts.damaged else None,
        )
    if not facts.checkpoints:
        return Finding(check="checkpoints", level="ok", said="none yet")
    read = "all" if facts.read == facts.checkpoints - facts.known else f"{facts.read:,}"
    said = f"{words.plural(facts.checkpoints, 'checkpoint')}, {read} read through"
    if facts.known:
        said += f"; {facts.known:,} recorded as damaged, which no resume takes"
    return Finding(check="checkpoints", level="ok", said=said)


# safe cures ----------------------------------------------------------------------------------------------------------


def _migrate(invocation: Invocation, progress: Progress) -> str:
    registry.open_registry(invocation.project.registry_path).close()
    return "the registry was migrated; .mlxops/backups has it as it was"


def _close_dead(invocation: Invocation, progress: Progress) -> str:
    if registry.try_to_close_dead_attempts(invocation.project.registry_path, _PATIENCE):
        return "runs whose process is dead were recorded as interrupted"
    return "runs whose process is dead could not be recorded: another process writes to the registry"


def _record_damage(invocation: Invocation, progress: Progress) -> str:
    found = verify.verify(
        invocation, CheckpointsConfig(), lambda what, done, of: progress(what, 100 * done // max(of, 1), 100)
    )
    if not found.is_recorded:
        return "damage to checkpoints could not be recorded: the registry cannot be written"
    return f"{words.plural(len(found.damaged), 'checkpoint')} recorded as damaged; their files stay"


def _show_hidden(invocation: Invocation, progress: Progress) -> str:
    folder = Path(packages.installed(invocation.project.root, invocation.blas).folder)
    shown = environment.show_hidden(folder)
    return f"{words.plural(len(shown), 'hidden file')} of the environment shown again"


_CURES: dict[str, Callable[[Invocation, Progress], str]] = {
    MIGRATE: _migrate,
    CLOSE: _close_dead,
    RECORD: _record_damage,
    SHOW: _show_hidden,
}
