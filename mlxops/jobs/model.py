"""Models: what is in models/, and how another one gets there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlxops.config import ImportConfig
from mlxops.errors import MlxopsError
from mlxops.models import folders, gguf, sample
from mlxops.projects import machine
from mlxops.projects.project import Project
from mlxops.settings import Settings


def models(settings: Settings) -> list[dict[str, Any]]:
    """The models in models/ by name; one that cannot be used is there with its `problem`."""
    folder = _project(settings).models_folder
    return [{"name": name, **_facts(folder / name)} for name in folders.list_models(folder)]


def import_model(
    settings: Settings, config: ImportConfig, progress: Callable[[str, int, int], None]
) -> tuple[str, folders.ModelInfo]:
    """Import a GGUF file into models/ and return the model's name and what it is."""
    project = _project(settings)
    if config.source == "sample" and not project.resolve(config.source).exists():
        source = sample.fetch_sample(settings.cache or machine.user_cache(), partial(progress, "fetching"))
        name = config.name or sample.NAME
    else:
        source = project.resolve(config.source)
        name = config.name or source.stem
    target = project.models_folder / name
    return name, gguf.import_gguf(source, target, dtype=config.dtype, progress=partial(progress, "importing"))


def _project(settings: Settings) -> Project:
    return Project(root=settings.root, cwd=settings.cwd, registry_path=settings.registry_path)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        info = folders.check_model(folder)
    except MlxopsError as error:
        return {"type": None, "layers": None, "parameters": None, "bytes": None, "dtype": None, "problem": str(error)}
    return {
        "type": info.model_type,
        "layers": info.layers,
        "parameters": info.parameters,
        "bytes": info.bytes,
        "dtype": "quantized" if info.quantization else info.dtype,
        "problem": None,
    }
