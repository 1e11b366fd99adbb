"""Runs of known figures for the tests: rows, curves, attempts, and folders as a training leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlxops import layout, registry
from mlxops.config import LoraConfig
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import Registry

ENVIRONMENT = {"mlx": "0.32.4", "mlxops": "0.1.0", "device": "cpu: some"}
LINE = [(10, 4.0), (20, 3.0), (30, 2.0)]
"""The losses of a run that falls evenly."""


def settings() -> Invocation:
    """The settings of a command typed in the current folder."""
    root = Path.cwd()
    return Invocation(project=Project.at(root), command="inv")


def new_run(db: Registry, name: str, *, config: Mapping[str, Any] | None = None, **values: Any) -> registry.CreatedRun:
    """A run that has not begun; `config` changes settings of its training."""
    stored = {**asdict(LoraConfig(model="models/tiny")), "validation_identity": "v" * 64, **(config or {})}
    given = {
        "kind": "lora",
        "fingerprint": name,
        "model": "models/tiny",
        "model_identity": "m" * 64,
        "data": "data",
        "data_identity": "d" * 64,
        "config": stored,
        "target_iterations": 100,
        "adapter_path": None,
    }
    return registry.create_run(db, name=name, **{**given, **values})


def begin(db: Registry, run: registry.CreatedRun, *, from_iteration: int = 0, **environment: Any) -> int:
    """Start an attempt of this process on a run."""
    return registry.start_attempt(
        db,
        run.id,
        start_kind="exact" if from_iteration else "fresh",
        from_iteration=from_iteration,
        trained_tokens=from_iteration * 10,
        target_iterations=100,
        device="cpu",
        environment={**ENVIRONMENT, **environment},
        command="inv lora --model tiny",
    )


def train(
    db: Registry,
    name: str,
    losses: Iterable[tuple[int, float]] = (),
    validations: Iterable[tuple[int, float, float]] = (),
    *,
    tokens: int = 10,
    speed: float = 100.0,
    **values: Any,
) -> registry.CreatedRun:
    """A run that completed in one attempt: its train losses, validations and errors, `tokens` an iteration."""
    run = new_run(db, name, **values)
    attempt = begin(db, run)
    report(db, run, attempt, losses, tokens=tokens, speed=speed)
    for iteration, loss, error in validations:
        registry.record_validation(db, run.id, attempt, iteration=iteration, loss=loss, standard_error=error)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=100)
    return run


def report(
    db: Registry,
    run: registry.CreatedRun,
    attempt: int,
    losses: Iterable[tuple[int, float]],
    *,
    tokens: int = 10,
    speed: float = 100.0,
) -> None:
    """Record train losses as an attempt reports them."""
    for iteration, loss in losses:
        registry.record_report(
            db,
            run.id,
            attempt,
            iteration=iteration,
            epoch=1,
            trained_tokens=iteration * tokens,
            metrics={
                "train_loss": loss,
                "trained_tokens": iteration * tokens,
                "tokens_per_second": speed,
                "peak_memory": 1e9,
            },
        )


def folder_of(db: Registry, run: registry.CreatedRun, iterations: Iterable[int] = (4, 8)) -> Path:
    """The folder of a run with checkpoints, as a training leaves it; the rows of the checkpoints with it."""
    folder = Path.cwd() / run.adapter_path
    folder.mkdir(parents=True)
    about = dict.fromkeys(("fingerprint", "model", "model_identity", "data", "data_identity"), "x")
    described = {**about, "name": run.name, "target": 100, "config": asdict(LoraConfig())}
    (folder / layout.SETTINGS).write_text(json.dumps({"mlxops": described}))
    (folder / layout.OFFERED).write_bytes(b"weights")
    (folder / ".lock").touch()
    for iteration in iterations:
        names = layout.adapter_name(iteration), layout.state_name(iteration)
        for name in names:
            (folder / name).write_bytes(b"0123456789")
        registry.add_checkpoint(
            db,
            run.id,
            None,
            iteration=iteration,
            adapter_file=names[0],
            state_file=names[1],
            bytes=20,
            adapter_sha256="a" * 64,
            state_sha256="b" * 64,
        )
    return folder
