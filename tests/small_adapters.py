"""Adapters of every kind for the tiny models, with weights that change what a model says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlxops.models.adapter_slot import AdapterSpec

# kind, layers, rank, keys
KINDS: dict[str, tuple[str, int, int, list[str] | None]] = {
    "lora": ("lora", 2, 8, None),
    "lora of another rank, other keys and layers": ("lora", 1, 4, ["self_attn.q_proj", "mlp.down_proj"]),
    "dora": ("dora", 2, 8, None),
    "embeddings": ("lora", 2, 4, ["self_attn.q_proj", "model.embed_tokens"]),
    "dora of embeddings": ("dora", 1, 4, ["mlp.up_proj", "model.embed_tokens"]),
    "full": ("full", 2, 8, None),
}


def make_adapter(model_folder: Path, folder: Path, kind: str, layers: int, rank: int, keys: list[str] | None) -> Path:
    """An adapter with weights that change what the model says, in a folder as mlx-lm reads it."""
    mx.random.seed(rank + layers)
    model, _ = utils.load_model(model_folder)
    model.freeze()
    parameters = {"rank": rank, "scale": 4.0, "dropout": 0.0, **({"keys": keys} if keys else {})}
    if kind == "full":
        for layer in model.layers[-layers:]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(model, layers, dict(parameters), use_dora=kind == "dora")
    changed = {
        name: value + mx.random.normal(value.shape) * 0.05 for name, value in tree_flatten(model.trainable_parameters())
    }
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), changed)
    settings = {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def spec(folder: Path, **changes: Any) -> AdapterSpec:
    """What `AdapterSlot` is told of such a folder."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    parameters = settings["lora_parameters"]
    described = AdapterSpec(
        name=f"the adapter of run {folder.name!r}",
        identity=folder.name,
        weights=folder / "adapters.safetensors",
        fine_tune_type=settings["fine_tune_type"],
        num_layers=settings["num_layers"],
        rank=parameters["rank"],
        scale=parameters["scale"],
        keys=parameters.get("keys"),
    )
    return replace(described, **changes)
