"""The state of the machine and of a project: what computes, what is installed, which models and runs there are.

MLX is not imported: all of it is read from the system, from files and from the views of the registry.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import get_ident

from mlxops import registry
from mlxops.errors import MlxopsError, NotFound
from mlxops.jobs.model import listing
from mlxops.jobs.model.listing import ModelEntry
from mlxops.projects import accelerator, machine, packages
from mlxops.projects.accelerator import Accelerator
from mlxops.projects.invocation import Invocation
from mlxops.projects.load import Load, LoadSampler
from mlxops.projects.packages import Installed
from mlxops.registry import DiskTotal, Registry, RunSummaryView
from mlxops.registry.opening import reading
from mlxops.system import host
from mlxops.training import lock

RECENT = 12
"""How many of the runs that are not at work are told of, the newest first."""

_SLOW = 30.0  # seconds after which models and packages are looked for again
_GPU = 10.0  # seconds after which a driver is asked again, which can take one
_NICE = 10  # a training goes first


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What the machine is, as it was asked once."""

    host: str
    system: str
    processor: str
    cores: int
    available_cores: int


@dataclass(frozen=True, kw_only=True)
class RunsNow:
    """What the registry has: the runs at work, the newest others, how many there are of each status, the disk's share.

    `alive` are the runs that are shown as lost while a process still trains them and cannot write to the registry.
    `gpu_memory` is what runs at work had on a GPU at their last report, in bytes by their names. `problem` is why the
    registry cannot be read.
    """

    at_work: Sequence[RunSummaryView] = ()
    recent: Sequence[RunSummaryView] = ()
    counts: Mapping[str, int]
    disk: DiskTotal
    alive: Sequence[str] = ()
    gpu_memory: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """All of it at one moment."""

    project: str
    registry: str
    machine: MachineFacts
    load: Load
    accelerators: tuple[Accelerator, ...]
    environment: Installed
    models: Sequence[ModelEntry]
    runs: RunsNow


class Observer:
    """Looks at the machine and the project again and again; what changes slowly is not looked at each time."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._project = invocation.project
        self._sampler = LoadSampler(self._project.root)
        self._machine: MachineFacts | None = None
        self._accelerators: tuple[Accelerator, ...] = ()
        self._environment: Installed | None = None
        self._models: Sequence[ModelEntry] = ()
        self._looked_at = self._asked_at = float("-inf")
        self._db: Registry | None = None
        self._thread = 0
        self._file: Hashable = None
        self._seen: Hashable = None
        self._runs = RunsNow(counts={}, disk=_NONE)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the registry, where it is this thread's: SQLite refuses to from another."""
        if self._db and self._thread == get_ident():
            self._db.close()
            self._db = None

    def stand_behind(self) -> None:
        """Let a training go first where both want a processor."""
        os.nice(_NICE)

    def look(self) -> Status:
        """The state now. What keeps the registry from being read is told, and all else is shown."""
        now = time.monotonic()
        if self._machine is None:
            self._machine = machine_facts()
        if self._environment is None or now - self._looked_at >= _SLOW:
            self._environment = packages.installed(self._project.root, self._invocation.blas)
            self._models = listing.on_this_machine(self._invocation)
            self._looked_at = now
        if now - self._asked_at >= _GPU:
            self._accelerators, self._asked_at = accelerator.find(), now
        return Status(
            project=str(self._project.root),
            registry=str(self._project.registry_path),
            machine=self._machine,
            accelerators=self._accelerators,
            environment=self._environment,
            models=self._models,
            runs=self._look_at_runs(),
            load=self._sampler.sample(),  # the last: a first one waits until there is a difference to tell
        )

    def _look_at_runs(self) -> RunsNow:
        try:
            db = self._open()
            at_work = registry.attempts_at_work(db)
            dead = {attempt["run_id"] for attempt in at_work if attempt["is_dead"]}
            if dead and registry.may_write(self._project.registry_path):
                registry.try_to_close_dead_attempts(self._project.registry_path, patience=0)
            beating = tuple(row["id"] for row in at_work if row["is_beating"] and not row["is_dead"])
            seen = (self._file, registry.data_version(db), beating, time.monotonic() // _SLOW)
            if seen != self._seen:
                self._runs, self._seen = self._read(db, dead), seen
        except NotFound:
            self._seen, self._runs = None, RunsNow(counts={}, disk=_NONE)
        except MlxopsError as error:
            self._seen, self._runs = None, RunsNow(counts={}, disk=_NONE, problem=error.message)
        return self._runs

    def _open(self) -> Registry:
        """The registry as it is now, which may be another file than at the last look."""
        path = self._project.registry_path
        file = registry.identity(path)
        if self._db and (file is None or file != self._file):
            self._db.close()
            self._db = None
        if self._db is None:
            with reading(path):  # brought up to date, and dead attempts closed
                pass
            self._db, self._file, self._thread = registry.open_read_only(path), registry.identity(path), get_ident()
        return self._db

    def _read(self, db: Registry, dead: set[int]) -> RunsNow:
        with registry.one_moment(db):
            runs = registry.overview(db)
            for run in runs:
                if run["id"] in dead and run["status"] == "running":
                    run["status"] = "lost"
            at_work = [registry.summary_of(db, run["id"]) for run in runs if run["status"] == "running"]
            others = [run for run in runs if run["status"] != "running"][:RECENT]
            recent = [registry.summary_of(db, run["id"]) for run in others]
            disk = registry.disk_total(db)
            gpu_memory = dict(_gpu_memory(db, at_work))
        for row, run in zip(recent, others, strict=True):
            row["status"] = run["status"]
        lost = (run for run in recent if run["status"] == "lost")
        return RunsNow(
            at_work=at_work,
            recent=recent,
            counts=dict(Counter(run["status"] for run in runs)),
            disk=disk,
            gpu_memory=gpu_memory,
            alive=[
                run["name"] for run in lost if lock.is_held(self._project.from_root(run["adapter_path"]) / lock.NAME)
            ],
        )


def _gpu_memory(db: Registry, runs: Sequence[RunSummaryView]) -> Iterator[tuple[str, float]]:
    for run in runs:
        memory = registry.latest_metrics(db, run["id"]).get("active_memory")
        if memory is not None and registry.attempts_of(db, run["id"])[-1]["device"] == "gpu":
            yield run["name"], memory


def machine_facts() -> MachineFacts:
    """What the machine is."""
    facts = machine.facts()
    return MachineFacts(
        host=facts["host"],
        system=host.description(),
        processor=facts["cpu"],
        cores=facts["cores"],
        available_cores=facts["available_cores"],
    )


_NONE: DiskTotal = {"runs": 0, "checkpoints": 0, "bytes": 0}
