"""Folders and logs of other programs as `run.import` finds them, and what is in the registry afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from known_runs import settings

from mlxops import registry
from mlxops.config import ImportRunConfig
from mlxops.jobs.run.imports import run as import_run

Typed = Callable[[str], tuple[int, str, str]]

BEGINNING = "Loading pretrained model\nStarting training..., iters: {}\n"
SETTINGS = {
    "model": "models/some", "data": "data", "fine_tune_type": "dora", "iters": 25, "num_layers": 4, "batch_size": 2,
    "learning_rate": 0.0003, "lora_parameters": {"rank": 16, "scale": 10.0, "dropout": 0.1}, "seed": 7,
}  # fmt: skip


def report(iteration: int, loss: float | str) -> str:
    return (
        f"Iter {iteration}: Train loss {loss}, Learning Rate 1.000e-05, It/sec 2.000, Tokens/sec 100.000, "
        f"Trained Tokens {iteration * 50}, Peak mem 3.400 GB\n"
    )


def validation(iteration: int, loss: float) -> str:
    return f"Iter {iteration}: Val loss {loss}, Val took 1.500s\n"


WHOLE = (
    f"{BEGINNING.format(20)}{validation(1, 3.0)}{report(10, 2.5)}{validation(20, 2.25)}{report(20, 2.125)}"
    "Iter 20: Saved adapter weights to adapters/adapters.safetensors and adapters/0000020_adapters.safetensors.\n"
)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def adapter(path: Path, value: float) -> None:
    safetensors.numpy.save_file({"layers.0.lora_a": np.full((4, 2), value, np.float32)}, path)


def folder(name: str = "old", *, numbered: tuple[int, ...] = (10, 20), final: float = 25, **changed: Any) -> Path:
    """An adapter folder of mlx_lm.lora; the arrays of an iteration hold its number."""
    made = Path(name)
    made.mkdir(parents=True)
    (made / "adapter_config.json").write_text(json.dumps({**SETTINGS, **changed}))
    for iteration in numbered:
        adapter(made / f"{iteration:07d}_adapters.safetensors", iteration)
    adapter(made / "adapters.safetensors", final)
    return made


def take(source: str | Path, name: str | None = None) -> dict[str, Any]:
    return asdict(import_run.import_run(settings(), ImportRunConfig(source=str(source), name=name)))


def ask(sql: str) -> list[dict[str, Any]]:
    with registry.open_read_only(settings().project.registry_path) as db:
        return db.rows(sql)


def curve(run: str, name: str) -> list[tuple[int, float | None]]:
    rows = ask(f"SELECT iteration, value FROM metric WHERE run = '{run}' AND name = '{name}' ORDER BY iteration")
    return [(row["iteration"], row["value"]) for row in rows]


def everything() -> dict[str, list[dict[str, Any]]]:
    tables = ("runs", "attempts", "metrics", "series", "checkpoints", "events")
    return {name: ask(f"SELECT * FROM {name}") for name in tables}
