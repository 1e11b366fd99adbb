"""What the tests of the monitor's rows write, and what it shows of them."""

from __future__ import annotations

from mlxops import registry
from mlxops.jobs.train.monitor import Watch
from mlxops.registry import Registry


def report(db: Registry, run: int, attempt: int, first: int, end: int) -> None:
    for iteration in range(first, end):
        figures = {"train_loss": 100 / iteration, "learning_rate": 1e-5, "iterations_per_second": 2.0}
        registry.record_report(
            db, run, attempt, iteration=iteration, epoch=1, trained_tokens=iteration, metrics=figures
        )


def shown(watch: Watch) -> str:
    state = watch.state()
    assert state is not None
    return str(state.run["name"])


def db_run(db: Registry, name: str) -> registry.CreatedRun:
    found = registry.find_run(db, name)
    return registry.CreatedRun(found["id"], found["name"], found["adapter_path"])
