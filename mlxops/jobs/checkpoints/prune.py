"""Removing checkpoints that nobody wants to keep: planned, shown, and then done run by run under the run's lock.

The row is marked first and the files go after it, states before adapters: a kill in between leaves files without a
promise, never a promise without files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.adapters import folders
from mlxops.config import CheckpointsConfig
from mlxops.errors import Busy, Failed, Refused
from mlxops.jobs.checkpoints.listing import RecordedRun, folder_asked, known_runs, recorded_hashes
from mlxops.jobs.train import claim, keep_last
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import CheckpointRow
from mlxops.training import checkpoints, lock, retention
from mlxops.training.retention import Kept, Plan


@dataclass(frozen=True, kw_only=True)
class Going:
    """What goes of one run: by iteration its states and adapters, by name what a kill or damage left. Bytes of all.

    `left_out` says why nothing goes of a run; `damaged` names checkpoints that are neither removed nor counted on.
    """

    run: str
    folder: str
    states: tuple[int, ...] = ()
    adapters: tuple[int, ...] = ()
    left_overs: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    bytes: int = 0
    damaged: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing goes."""
        return not (self.states or self.adapters or self.left_overs or self.set_aside)


def prune(
    invocation: Invocation, config: CheckpointsConfig, agree: Callable[[list[Going]], bool | None]
) -> list[Going]:
    """Plan, have it agreed to unless told `--yes`, and do it; returns what went.

    `agree` is shown what would be deleted; None from it means that nobody could be asked, which raises `Refused`.
    """
    planned = plan(invocation, config)
    if all(going.is_nothing for going in planned):
        return planned
    is_agreed = config.yes or agree(planned)
    if is_agreed is None:
        raise Refused("nothing was deleted: no terminal to confirm on", hint="add `--yes`")
    return _act(invocation, config, planned) if is_agreed else []


def plan(invocation: Invocation, config: CheckpointsConfig) -> list[Going]:
    """What would be deleted of every run, of one, or of those below a folder. Removes and records nothing.

    Before anything is planned to go, the newest checkpoint of its run is read through: what stays has to be whole.
    """
    project = invocation.project
    below = folder_asked(project, config.path)
    runs = known_runs(invocation, config.run)
    if below is not None:
        runs = [run for run in runs if files.is_below(_place(project, run), below)]
    if not runs:
        return []
    with registry.open_read_only(invocation.project.registry_path) as db:
        return [_plan_run(project, db, run, run.rows, config)[0] for run in runs]


def _act(invocation: Invocation, config: CheckpointsConfig, planned: Sequence[Going]) -> list[Going]:
    """Do what was planned, each run planned again under its lock."""
    project, done = invocation.project, []
    names = {going.run for going in planned if not going.is_nothing}
    who = claim.holder(invocation.command or "")
    with registry.open_registry(invocation.project.registry_path) as db:
        for run in known_runs(invocation, config.run):
            if run.row["name"] not in names:
                continue
            folder = _place(project, run)
            try:
                # a branch that is begun meanwhile needs its checkpoint
                with (
                    claim.deciding(project, who),
                    lock.hold(folder / lock.NAME, who, what=f"the run {run.row['name']!r}"),
                ):
                    done.append(_remove(project, db, run, config))
            except Busy as error:
                done.append(_left_out(run, error.message))
    return done


def _wishes(config: CheckpointsConfig) -> dict[str, int | None]:
    return {"--keep-last": config.keep_last, "--keep-best": config.keep_best, "--keep-every": config.keep_every}


def _place(project: Project, run: RecordedRun) -> Path:
    return project.from_root(run.row["adapter_path"])


def _left_out(run: RecordedRun, why: str) -> Going:
    return Going(run=run.row["name"], folder=run.row["adapter_path"], left_out=why)


def _plan_run(
    project: Project,
    db: registry.Registry,
    run: RecordedRun,
    rows: Sequence[CheckpointRow],
    config: CheckpointsConfig,
    *,
    is_mine: bool = False,
) -> tuple[Going, Plan, dict[int, Kept]]:
    """What goes of a run, and the checkpoints that were weighed."""
    folder = _place(project, run)
    contents = folders.look(folder)
    if contents.problem is not None:
        return _left_out(run, f"its folder {contents.problem}"), Plan(), {}
    if not is_mine and lock.is_held(folder / lock.NAME):
        return _left_out(run, "a process is at work on it"), Plan(), {}
    sizes = {each.name: each.bytes for each in contents.files}
    kept = {each.iteration: each for each in keep_last.kept(rows, registry.branch_points(db, run.row["id"]), sizes)}
    found, damaged = _plan_around_damage(run, rows, folder, kept, config)
    promised_gone = _left_over(rows, sizes)
    left_overs = [each for each in contents.files if each.kind == "half-written" or each.name in promised_gone]
    set_aside = [each for each in contents.of("set aside") if layout.CORRUPT in each.name]
    going = Going(
        run=run.row["name"],
        folder=run.row["adapter_path"],
        states=found.states,
        adapters=found.adapters,
        left_overs=tuple(each.name for each in left_overs),
        set_aside=tuple(each.name for each in set_aside),
        bytes=found.bytes + sum(each.bytes for each in (*left_overs, *set_aside)),
        damaged=tuple(damaged),
    )
    return going, found, kept


def _left_over(rows: Sequence[CheckpointRow], sizes: Mapping[str, int]) -> set[str]:
    """The files that a pruning which was cut short had still to remove."""
    states, adapters = keep_last.left_over(rows, sizes)
    return {*map(layout.state_name, states), *map(layout.adapter_name, adapters)}


def _plan_around_damage(
    run: RecordedRun, rows: Sequence[CheckpointRow], folder: Path, kept: dict[int, Kept], config: CheckpointsConfig
) -> tuple[Plan, list[str]]:
    """A plan that counts on nothing damaged: what has to stay is read through, and drops out where it is not whole."""
    losses = {row["iteration"]: row["validation_loss"] for row in rows if row["validation_loss"] is not None}
    recorded = {row["iteration"]: row for row in rows}
    left = dict(kept)
    damaged: list[str] = []
    read: set[int] = set()
    while True:
        found = retention.plan(
            list(left.values()),
            keep_last=config.keep_last if any(_wishes(config).values()) else 1,
            keep_best=config.keep_best,
            keep_every=config.keep_every,
        )
        newest = max((each.iteration for each in left.values() if each.has_state), default=None)
        best = next((each.iteration for each in left.values() if each.is_best), None)
        unread = [each for each in (newest, best) if each is not None and each not in read]
        if not unread or not (found.states or found.adapters):
            return found, damaged
        iteration = unread[0]
        read.add(iteration)
        hashes = recorded_hashes(recorded[iteration], has_state=left[iteration].has_state)
        problem = checkpoints.problem(folder, iteration, hashes, fingerprint=run.row["fingerprint"])
        if problem:
            damaged.append(f"iteration {iteration:,}: {problem}")
            del left[iteration]
            _choose_best(left, losses)


def _choose_best(left: dict[int, Kept], losses: Mapping[int, float]) -> None:
    """Where the best has dropped out, the next best stays in its place."""
    measured = [iteration for iteration in left if iteration in losses]
    if measured and not any(each.is_best for each in left.values()):
        best = min(measured, key=lambda iteration: (losses[iteration], iteration))
        left[best] = replace(left[best], is_best=True)


def _remove(project: Project, db: registry.Registry, run: RecordedRun, config: CheckpointsConfig) -> Going:
    rows = registry.checkpoints_of(db, run.row["id"])  # as they are under the lock
    going, found, kept = _plan_run(project, db, run, rows, config, is_mine=True)
    if going.is_nothing:
        return going
    folder = _place(project, run)
    carry_out(db, run.row["id"], folder, found, bytes_left={each: kept[each].adapter_bytes for each in found.states})
    for name in (*going.left_overs, *going.set_aside):
        _unlink(folder / name)
    files.sync(folder)
    message = f"removed {_count(found)}, {going.bytes:,} bytes"
    detail = {"states": list(found.states), "adapters": list(found.adapters), "set_aside": list(going.set_aside)}
    registry.add_event(db, run.row["id"], None, kind="pruned", message=message, detail=detail)
    return going


def carry_out(db: registry.Registry, run_id: int, folder: Path, found: Plan, *, bytes_left: Mapping[int, int]) -> None:
    """Mark the rows of a plan, then remove its states, then its adapters. The run's lock is held by the caller."""
    registry.mark_pruned(db, run_id, states=found.states, adapters=found.adapters, bytes_left=bytes_left)
    _, failed = checkpoints.remove(folder, states=found.states, adapters=found.adapters)
    if failed:
        name, why = next(iter(failed.items()))
        more = f", nor {len(failed) - 1:,} more" if len(failed) > 1 else ""
        raise Failed(
            f"{name} in {str(folder)!r} cannot be removed{more}: {why}",
            hint="the folder has to be one you may write to",
        )


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Failed(
            f"{str(path)!r} cannot be removed: {error.strerror}", hint="its folder has to be one you may write to"
        ) from error


def _count(found: Plan) -> str:
    alone = len(set(found.states) - set(found.adapters))
    parts = [f"{len(found.adapters):,} checkpoints"] if found.adapters or not alone else []
    return " and ".join([*parts, *([f"the state of {alone:,} more"] if alone else [])])
