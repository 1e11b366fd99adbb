"""Runs at work without a model, whose registry may be away, and all that a registry holds of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empty_registry import open_empty
from registry_rows import new_attempt, new_run

from mlxops import registry, times
from mlxops.events import Notice, Report, Saved, Started, Validation
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder


@dataclass
class Training:
    """A run at work without a model: what it says is recorded, its clock stands, and no thread tries for it."""

    path: Path
    name: str = "heron"
    pace: float = 1.0
    seconds: float = 0.0
    said: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.db = (registry.open_registry if self.path.exists() else open_empty)(self.path)
        self.folder = self.path.parent / "adapters" / self.name
        self.folder.mkdir(parents=True)
        run = new_run(self.db, self.name)
        self.created_at = registry.find_run(self.db, self.name)["created_at"]
        attempt = new_attempt(self.db, run.id)
        self.writer = Writer(
            self.db, run.id, attempt, folder=self.folder, restore=self.restore, say=self.said.append,
            clock=lambda: self.seconds, in_background=False,
        )  # fmt: skip
        self.record = Recorder(self.writer, 0, now=self.now)
        self.record(Started(iteration=0, target=100, batches_per_epoch=10, trained_tokens=0))

    def now(self) -> float:
        """Seconds since 1970, counted from the run's creation."""
        return times.time_of(self.created_at).timestamp() + self.seconds

    def restore(self, db: registry.Registry) -> int:
        return new_run(db, self.name).id

    def step(self, iteration: int) -> None:
        """A step of training: a report, every second time a validation, every fourth a checkpoint."""
        self.seconds += self.pace
        metrics = {"train_loss": 3 - iteration / 10, "trained_tokens": iteration * 10.0, "gradient_norm": float("nan")}
        self.record(Report(iteration=iteration, epoch=1, metrics=metrics))
        if iteration % 2 == 0:
            self.record(
                Validation(
                    iteration=iteration, loss=3 - iteration / 20, standard_error=0.1, rows=1, tokens=1, seconds=0
                )
            )
            self.record(Notice(kind="note", message=f"it is {iteration}\u2028", iteration=iteration))
        if iteration % 4 == 0:
            self.writer.keep(iteration)
            self.record(saved(iteration))

    def close(self) -> None:
        self.db.close()


def saved(iteration: int) -> Saved:
    return Saved(
        iteration=iteration, adapter_file=f"{iteration:07d}_adapters.safetensors",
        state_file=f"{iteration:07d}_state.safetensors", bytes=1, adapter_sha256="a", state_sha256=f"s{iteration}",
        train_loss=1.0, validation_loss=3 - iteration / 20, seconds=0.0,
    )  # fmt: skip


def history(path: Path, name: str = "heron") -> dict[str, Any]:
    """What the registry holds of a run, all times counted from its creation."""
    since = "round((julianday({}) - julianday(runs.created_at)) * 86400, 1) AS seconds"
    of_run = "JOIN runs ON runs.id = run_id WHERE runs.name = ?"
    tables = {
        "points": "SELECT name, iteration, value, elapsed_seconds FROM metric WHERE run = ? ORDER BY 1, 2",
        "series": "SELECT metric_names.name, count, not_finite, last_value, last_elapsed_ms, min_iteration"
        f" FROM series JOIN metric_names ON metric_names.id = name_id {of_run} ORDER BY 1",
        "events": f"SELECT events.iteration, {since.format('time')}, level, events.kind, message,"
        f" attempt_id IS NULL AS is_alone FROM events {of_run} ORDER BY events.id",
        "checkpoints": f"SELECT checkpoints.iteration, {since.format('checkpoints.created_at')}, is_best,"
        f" checkpoints.status, state_sha256, attempt_id IS NULL AS is_alone FROM checkpoints {of_run} ORDER BY 1",
    }
    with registry.open_read_only(path) as db:
        run = registry.find_run(db, name)
        found = {table: db.rows(sql, (run["name"],)) for table, sql in tables.items()}
    return {**found, "run": (run["iteration"], run["trained_tokens"], run["best_iteration"])}
