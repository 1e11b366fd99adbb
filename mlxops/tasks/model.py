"""The models on this disk."""

from __future__ import annotations

from invoke import Context

from mlxops.config import ImportConfig, ModelsConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task(name="list")
def list_models(c: Context, config: ModelsConfig) -> None:
    """List the models in models/."""
    from mlxops import jobs
    from mlxops.ui import console, show

    rows = jobs.models(house.settings(c))
    if config.json:
        show.json_out(rows, console.make())
    else:
        show.table(["name", "type", "layers", "parameters", "bytes", "dtype"], rows, console.make())


@task(name="import")
def import_model(c: Context, config: ImportConfig) -> None:
    """Import a model from a GGUF file into models/."""
    from mlxops import jobs
    from mlxops.ui import console, show

    folder = jobs.import_model(house.settings(c), config)
    show.facts(f"imported {folder}", [], [f"inv lora --model {folder.name} trains it"], console.make())
