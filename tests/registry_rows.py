"""Runs, attempts, reports and checkpoints for tests of the registry."""

from __future__ import annotations

import subprocess
import sys

from mlxops import registry
from mlxops.registry import Registry


def new_run(db: Registry, name: str | None = "heron", **values: object) -> registry.CreatedRun:
    settings = {
        "kind": "lora",
        "fingerprint": "f1",
        "model": "models/SmolLM2-135M-Instruct",
        "model_identity": "m1",
        "data": "data",
        "data_identity": "d1",
        "config": {"iters": 100},
        "target_iterations": 100,
        "adapter_path": None,
    }
    return registry.create_run(db, name=name, **settings | values)  # type: ignore[arg-type]


def new_attempt(db: Registry, run_id: int, from_iteration: int = 0, **values: object) -> int:
    settings = {
        "start_kind": "exact" if from_iteration else "fresh",
        "trained_tokens": from_iteration * 10,
        "target_iterations": 100,
        "device": "cpu",
        "environment": {"threads": 2},
        "command": "inv lora",
    }
    return registry.start_attempt(db, run_id, from_iteration=from_iteration, **settings | values)  # type: ignore[arg-type]


def report(db: Registry, run_id: int, attempt_id: int | None, iteration: int, **metrics: float) -> None:
    registry.record_report(
        db, run_id, attempt_id, iteration=iteration, epoch=1, trained_tokens=iteration * 10, metrics=metrics
    )


def save(db: Registry, run_id: int, attempt_id: int | None, iteration: int, **values: object) -> int:
    files = {
        "adapter_file": f"{iteration:07d}_adapters.safetensors",
        "state_file": f"{iteration:07d}_state.safetensors",
        "bytes": 1000,
        "adapter_sha256": "a" * 64,
        "state_sha256": "b" * 64,
    }
    return registry.add_checkpoint(db, run_id, attempt_id, iteration=iteration, **files | values)  # type: ignore[arg-type]


def status(db: Registry, name: str = "heron") -> str:
    return str(registry.find_run(db, name)["status"])


def die(db: Registry, attempt_id: int) -> None:
    """Make an attempt that of a process which was there and is no longer."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    db.connection.execute("UPDATE attempts SET pid = ? WHERE id = ?", (process.pid, attempt_id))


def age_heartbeats(db: Registry, seconds: int) -> None:
    db.connection.execute(
        "UPDATE attempts SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?)", (f"-{seconds} seconds",)
    )
