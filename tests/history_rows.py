"""Runs with a history, for tests of lists, pages and curves."""

from __future__ import annotations

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.options import options_of


def new_run(db: registry.Registry, name: str, **values: object) -> registry.CreatedRun:
    config = {option.name: option.default for option in options_of(LoraConfig)}
    settings = {
        "kind": "lora",
        "fingerprint": "f" * 64,
        "model": "models/tiny",
        "model_identity": "m",
        "data": "data",
        "data_identity": "d",
        "config": config,
        "target_iterations": 100,
        "adapter_path": None,
    }
    return registry.create_run(db, name=name, **settings | values)  # type: ignore[arg-type]


def begin(db: registry.Registry, run: registry.CreatedRun) -> int:
    return registry.start_attempt(
        db,
        run.id,
        start_kind="fresh",
        from_iteration=0,
        trained_tokens=0,
        target_iterations=100,
        device="cpu",
        environment={"threads": 2},
        command="inv lora --model tiny",
    )
