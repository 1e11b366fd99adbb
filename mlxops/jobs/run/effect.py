"""Settings by what they do: those that are written in different ways and train the same are equal."""

from __future__ import annotations

from collections.abc import Sequence

from mlxops.errors import MlxopsError
from mlxops.models.folders import check_with_headers
from mlxops.projects.project import Project
from mlxops.registry import JsonObject, RunRow

_OF_LORA = ("lora_rank", "lora_scale", "lora_dropout", "lora_keys")


def in_effect(config: JsonObject, layers: int | None) -> JsonObject:
    """The settings of a run of a model of so many layers, each as the shortest way to say what it does.

    >>> in_effect({"num_layers": 4, "optimizer": "adam", "optimizer_config": {"sgd": {"momentum": 0.9}}}, 4)
    {'num_layers': -1, 'optimizer': 'adam', 'optimizer_config': {}}
    """
    found = dict(config)
    if layers is not None and (found.get("num_layers") or 0) >= layers:
        found["num_layers"] = -1
    if "optimizer_config" in found:
        found["optimizer_config"] = (found["optimizer_config"] or {}).get(found.get("optimizer")) or {}
    if "lora_keys" in found:
        found["lora_keys"] = sorted(found["lora_keys"] or [])
    if found.get("fine_tune_type") == "full":
        found |= dict.fromkeys(_OF_LORA)
    if "warmup_init" in found and not found.get("warmup"):
        found["warmup_init"] = None
    # a run stores the iterations that its epochs came to
    if "epochs" in found:
        found["epochs"] = None
    return found


def layers_of(project: Project, runs: Sequence[RunRow]) -> int | None:
    """How many layers the model of these runs has; None where it is not one model, or is no longer there."""
    if len({run["model_identity"] for run in runs}) > 1:
        return None
    for place in dict.fromkeys(run["model"] for run in runs):
        try:
            return check_with_headers(project.from_root(place), parses_tokenizer=False).info.layers
        except MlxopsError:
            continue
    return None
