"""What the registry knows of a model: where it came from, or what it was made of, and the SHA-256 of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mlxops import files, registry
from mlxops.projects import known_projects, machine
from mlxops.projects.project import Project

Progress = Callable[[str, int, int], None]


def recorded(project: Project) -> dict[str, registry.ModelRow]:
    """What the project's registry knows of models, by path; nothing where there is no registry."""
    if not project.registry_path.is_file():
        return {}
    with registry.open_read_only(project.registry_path) as db:
        return registry.recorded_models(db)


def record(
    project: Project,
    folder: Path,
    *,
    source: str,
    revision: str | None,
    quantization: str | None,
    hashes: Mapping[str, str],
) -> None:
    """Record a model that stands under its name, in place of what was known of that folder."""
    known_projects.remember(machine.user_cache(), project.root)
    with registry.open_registry(project.registry_path) as db:
        registry.record_model(
            db,
            project.relative(folder),
            source=source,
            revision=revision,
            bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            quantization=quantization,
            sha256=hashes,
        )


def record_made(
    project: Project, folder: Path, *, source: str, revision: str, quantization: str | None, progress: Progress
) -> None:
    """Record a model that was made here, once: a command that was killed before it did leaves that to the next one.

    `source` says what it was made of in words, which no id of the hub is, and `revision` tells this making from any
    other.
    """
    known = recorded(project).get(project.relative(folder))
    if known is None or (known["source"], known["revision"]) != (source, revision):
        hashes = hashes_of(folder, partial(progress, "files hashed"))
        record(project, folder, source=source, revision=revision, quantization=quantization, hashes=hashes)


def hashes_of(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, str]:
    """The SHA-256 of each file of a folder."""
    found = files.matching(folder, "**/*")
    hashes = {}
    for number, file in enumerate(found, start=1):
        hashes[file.relative_to(folder).as_posix()] = files.sha256(file)
        progress(number, len(found))
    return hashes
