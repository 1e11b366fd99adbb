"""The models on this disk."""

from __future__ import annotations

import shlex

from invoke import Context

from mlxops.config import ImportConfig, ModelsConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task(name="list")
def list_models(c: Context, config: ModelsConfig) -> None:
    """List the models in models/."""
    from dataclasses import astuple

    from mlxops.jobs.model import models
    from mlxops.ui.terminal import console, tables

    rows = models.models(house.invocation(c))
    if config.json:
        tables.json_out(rows, console.make())
    else:
        columns = ("name", "type", "layers", "parameters", "bytes", "dtype", "problem")
        tables.table(columns, [astuple(row) for row in rows], console.make())


@task(name="import")
def import_model(c: Context, config: ImportConfig) -> None:
    """Import a GGUF file, or the sample model, into models/."""
    from mlxops.jobs.model import models
    from mlxops.ui.terminal import console, progress, tables

    with progress.bars(console.make(stderr=True)) as advance:
        imported = models.import_model(house.invocation(c), config, advance)
    if config.json:
        tables.json_out(imported.to_json(), console.make())
    else:
        facts = [("type", imported.info.model_type), ("parameters", f"{imported.info.parameters:,}")]
        notes = [*imported.notes, f"inv lora --model {shlex.quote(imported.typed)} trains it"]
        tables.facts(imported.path, facts, notes, console.make())


COLLECTION = "model"
TASKS = (list_models, import_model)
SHORT_NAMES = {"models": list_models}
