"""What a monitor shows: a run as the registry has it now, read so that watching costs next to nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from mlxops import registry
from mlxops.analysis.trend import WINDOW, Trend, trend
from mlxops.config import ImportRunConfig, MonitorConfig
from mlxops.errors import BadRequest, NotFound
from mlxops.jobs.train.seats import Seats
from mlxops.projects.invocation import Invocation
from mlxops.projects.machine import user_cache
from mlxops.projects.process import Sampler
from mlxops.registry import (
    AttemptRow,
    CheckpointRow,
    EventView,
    Range,
    Ranges,
    Registry,
    RunOverview,
    RunSummaryView,
)
from mlxops.registry.opening import migrate_older
from mlxops.training import lock

CURVES = ("train_loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second", "padding_share")
_LOSSES = CURVES[:2]
_RANGES = 400  # of a loss, two a column of a wide terminal
_EVENTS = 50  # more than a terminal has room for
_FEW_RANGES = 128  # of the small curves beside it
_NICE = 10  # a tenth of the weight of a process of usual priority, so that a frame still comes at once
_MOST = 8  # runs over each other
_FEWEST = 10  # iterations, the closest zoom


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """A run that is laid over the one that is shown. `place` is that of its letter, which stays."""

    name: str
    place: int
    curves: Mapping[str, Sequence[Range]]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run as the registry has it at one moment, and what there is beside it.

    `runs` are the names of all, newest first, `index` its place among them; `gone` are those deleted meanwhile. `since`
    and `last` are the first iteration shown and how many are asked for; `warnings` are iterations with one. `is_alive`
    says that a process is at work on a run that the registry has as lost: it is kept from writing there. `place` is
    that of the run's letter where others are laid over it; `is_stopping` says that it was asked to save and stop.
    """

    run: RunSummaryView
    gone: Sequence[str]
    runs: Sequence[str]
    index: int
    at_work: Sequence[str]
    latest: Mapping[str, float | None]
    attempts: Sequence[AttemptRow]
    checkpoints: Sequence[CheckpointRow]
    events: Sequence[EventView]
    warnings: Sequence[int]
    best_at: str | None
    trend: Trend | None
    since: int
    last: int | None
    curves: Mapping[str, Sequence[Range]]
    is_laid_over: bool
    place: int
    others: Sequence[OtherRun]
    is_alive: bool = False
    is_stopping: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineLoad:
    """What the run's process and the machine take, as a `Sample` has it, and how many monitors are open."""

    process_cpu_percent: float | None
    process_memory: int | None
    cpu_percent: float | None
    processors: int | None
    memory_percent: float
    memory: int
    monitors: int


def open_watch(invocation: Invocation, config: MonitorConfig) -> Watch:
    """What the monitor is asked to show; a log of another tool is imported first, and its run is the one shown."""
    if not config.log_file:
        watch = Watch(invocation, config.run, config.last)
        migrate_older(watch.path)
        return watch
    from mlxops.jobs.run.imports import run

    imported = run.import_run(invocation, ImportRunConfig(source=config.log_file))
    return Watch(invocation, [imported.name, *config.run], config.last)


class Watch:
    """A run as the monitor sees it, with others over it; the monitor's keys change which.

    It shows the run that is named, else the one at work, else the newest; while it shows one at work it stays with it.
    Several names lay their runs over each other. One that is deleted meanwhile is left out, and said to be gone. No
    transaction stays open: a reader that holds one makes the log grow.
    """

    def __init__(self, invocation: Invocation, names: Sequence[str] = (), last: int | None = None) -> None:
        if len(set(names)) > _MOST:
            raise BadRequest(f"{len(set(names))} runs are too many to tell apart", hint=f"name at most {_MOST}")
        self.path = invocation.project.registry_path
        self._project = invocation.project
        self.name = names[0] if names else None
        self.last = last
        self._named = list(dict.fromkeys(names))
        self._is_resolved = not names
        self._laid_over: dict[str, int] = {}  # and the place of its letter
        self._shown: str | None = None
        self._gone: list[str] = []
        self._dead: set[int] = set()  # runs whose open attempt is dead and could not be closed yet
        self._state: Snapshot | None = None
        self._ranges: dict[tuple[Any, ...], Ranges] = {}
        self._sampler = Sampler()
        cache = user_cache()
        self._seats = Seats(cache / f"monitors-{registry.this_host()}" if cache else None)
        self._db: Registry | None = None
        self._thread = 0
        self._file: Hashable = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open, where it is this thread's: SQLite refuses to from another, which may still be reading."""
        self._seats.leave()
        if self._db and self._thread == get_ident():
            self._db.close()
            self._db = None

    def state(self) -> Snapshot | None:
        """What there is to show now, None while there is no run."""
        # asked first, so that dead attempts are closed before they are shown
        self.changed()
        try:
            db = self._open()
        except NotFound:
            if self.name is None and not self.path.is_dir():
                return None
            raise
        with registry.one_moment(db):
            runs = registry.overview(db)
            for run in filter(self._is_lost, runs):
                run["status"] = "lost"
            self._resolve(db, runs)
            self._leave_out({run["name"] for run in runs})
            self._state = self._read(db, runs, self._choose(runs)) if runs else None
        return self._state

    def changed(self) -> tuple[Hashable, Hashable]:
        """Which attempts are at work and alive, and another value when somebody has written; costs little.

        None and None while there is no registry, or one that is just being made.
        """
        try:
            db = self._open()
        except NotFound:
            return None, None
        at_work = registry.attempts_at_work(db)
        self._dead = {attempt["run_id"] for attempt in at_work if attempt["is_dead"]}
        if self._dead and registry.may_write(self.path):
            registry.try_to_close_dead_attempts(self.path, patience=0)
        beating = tuple(row["id"] for row in at_work if row["is_beating"] and not row["is_dead"])
        return beating, (self._file, registry.data_version(db))

    def stand_behind(self) -> None:
        """Let the training go first where both want a processor, and other monitors know of this one."""
        os.nice(_NICE)
        self._seats.take()

    def machine(self) -> MachineLoad:
        """What the machine and the shown run's process take, in shares of one processor and in bytes; the monitors."""
        attempts = self._state.attempts if self._state else []
        found = self._sampler.sample(registry.process_of(attempts[-1]) if attempts else None)
        return MachineLoad(**vars(found), monitors=self._seats.count())

    def switch(self, steps: int) -> None:
        """Move by so many runs, round and round; among the named ones where several are."""
        self._gone.clear()
        if self._state is None:
            return
        names = self._named if len(self._named) > 1 else self._state.runs
        here = names.index(self._shown) if self._shown is not None and self._shown in names else 0
        self.name = names[(here + steps) % len(names)]

    def overlay(self) -> None:
        """Keep the shown run on the chart while others are shown, or no longer."""
        if self._shown is None:
            return
        if self._shown in self._laid_over:
            del self._laid_over[self._shown]
            return
        if len(self._laid_over) == _MOST:
            del self._laid_over[next(iter(self._laid_over))]
        self._laid_over[self._shown] = self._place_of(self._shown)

    def zoom(self, steps: int) -> None:
        """Show half of the iterations shown, or twice as many, or with 0 all of them."""
        if self._state is None or steps == 0:
            self.last = None
            return
        whole = self._state.run["iteration"]
        now = min(self.last or whole, whole)
        wanted = now // 2 if steps > 0 else now * 2
        self.last = None if wanted >= whole else max(wanted, _FEWEST)

    def _open(self) -> Registry:
        """The registry as it is now, which may be another than at the last look."""
        file = registry.identity(self.path)
        if self._db and file != self._file:
            self._db.close()
            self._db = None
        if self._db is None:
            self._db, self._file, self._thread = registry.open_read_only(self.path), file, get_ident()
        return self._db

    def _is_lost(self, run: RunOverview | RunSummaryView) -> bool:
        """Whether its process is dead though the registry could not be told yet."""
        return run["id"] in self._dead and run["status"] == "running"

    def _resolve(self, db: Registry, runs: Sequence[RunOverview]) -> None:
        """The names that were typed, once, as the runs that they mean; raises where one means none."""
        if self._is_resolved:
            return
        names = {run["name"] for run in runs}
        found = [name if name in names else registry.find_run(db, name)["name"] for name in self._named]
        self._named, self.name, self._is_resolved = list(dict.fromkeys(found)), found[0], True
        self._laid_over = {name: place for place, name in enumerate(self._named)} if len(self._named) > 1 else {}

    def _leave_out(self, names: Collection[str]) -> None:
        """Forget the runs that are no longer there, and raise where they were all that was asked for."""
        known = (*self._named, *self._laid_over, self._shown, self.name)
        gone = [name for name in dict.fromkeys(known) if name is not None and name not in names]
        left = [name for name in self._named if name in names]
        if self._named and not left and self.name in gone:
            which = " and ".join(map(repr, self._named))
            raise NotFound(f"{which}: deleted while shown", hint="`inv runs` shows the runs there are")
        self._gone += gone
        self._named = left
        self._laid_over = {name: place for name, place in self._laid_over.items() if name in names}
        if self.name in gone:
            self.name = left[0] if left else None
        if self._shown in gone:
            self._shown = None

    def _choose(self, runs: Sequence[RunOverview]) -> int:
        places = {run["name"]: index for index, run in enumerate(runs)}
        index = places.get(self.name) if self.name is not None else None
        if index is None:
            at_work = [index for index, run in enumerate(runs) if run["status"] == "running"]
            shown = places.get(self._shown) if self._shown is not None else None
            index = shown if shown in at_work or (shown is not None and not at_work) else (*at_work, 0)[0]
        self._shown = runs[index]["name"]
        return index

    def _read(self, db: Registry, runs: Sequence[RunOverview], index: int) -> Snapshot:
        run = registry.summary_of(db, runs[index]["id"])
        if self._is_lost(run):
            run["status"], run["eta_seconds"] = "lost", None
        attempts = registry.attempts_of(db, run["id"])
        since = max(run["iteration"] - self.last + 1, 0) if self.last else 0
        moving = trend(registry.last_points(db, run["id"], "train_loss", WINDOW))
        wanted = [self._curve(run, name) for name in CURVES]
        over = [each for each in runs if each["name"] in self._laid_over and each["id"] != run["id"]]
        others = [registry.summary_of(db, each["id"]) for each in over]
        place = self._project.from_root(run["adapter_path"]) / lock.NAME
        wanted += [self._curve(other, name) for other in others for name in _LOSSES]
        self._ranges = {
            key: self._ranges.get(key) or Ranges(key[0], key[1], _RANGES if key[1] in _LOSSES else _FEW_RANGES)
            for key in wanted
        }
        read = {key: ranges.read(db, since) for key, ranges in self._ranges.items()}
        return Snapshot(
            run=run,
            gone=list(self._gone),
            runs=[each["name"] for each in runs],
            index=index,
            at_work=[each["name"] for each in runs if each["status"] == "running" and each["id"] != run["id"]],
            latest=registry.latest_metrics(db, run["id"]),
            attempts=attempts,
            checkpoints=registry.checkpoints_of(db, run["id"]),
            events=registry.events_of(db, run["id"], last=_EVENTS),
            warnings=registry.warned_at(db, run["id"], since, run["iteration"], _RANGES),
            best_at=registry.time_of_best(db, run["id"]),
            trend=moving,
            since=since,
            last=self.last,
            curves={key[1]: rows for key, rows in read.items() if key[0] == run["id"]},
            is_laid_over=run["name"] in self._laid_over,
            place=self._place_of(run["name"]),
            is_alive=run["status"] == "lost" and lock.is_held(place),
            is_stopping=run["status"] == "running" and "stopping" in lock.holder_of(place),
            others=[
                OtherRun(
                    name=other["name"],
                    place=self._place_of(other["name"]),
                    curves={key[1]: rows for key, rows in read.items() if key[0] == other["id"]},
                )
                for other in others
            ],
        )

    def _place_of(self, name: str) -> int:
        """The place of a run's letter, the first that is free for one that is not laid over."""
        taken = self._laid_over.values()
        return self._laid_over.get(name, min(set(range(len(taken) + 1)) - set(taken)))

    def _curve(self, run: RunSummaryView, name: str) -> tuple[Any, ...]:
        """What names a curve: a new attempt may have taken points away, and the id of a deleted run is given again."""
        return run["id"], name, run["name"], run["created_at"], run["attempts"], self.last
