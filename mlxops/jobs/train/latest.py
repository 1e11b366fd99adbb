"""`adapters/latest`, the link to the newest run's folder. Nothing reads it but people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlxops import files, registry
from mlxops.projects.project import Project
from mlxops.registry import Registry

_NAME = "latest"


def point_at(project: Project, folder: Path) -> None:
    """Make it a link to this run, where the run is one of the folders beside it."""
    link = project.adapters_folder / _NAME
    if not files.is_same(folder.parent, project.adapters_folder) or (link.exists() and not link.is_symlink()):
        return
    beside = link.with_name(f".{_NAME}.{os.getpid()}")
    with suppress(OSError):  # a file system without links has none
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder.name, target_is_directory=True)
        beside.replace(link)


def repair(project: Project, db: Registry, emptied: Sequence[Path]) -> str | None:
    """Point it at the newest run's folder where it points at one of those emptied; returns that folder's name."""
    link = project.adapters_folder / _NAME
    if not link.is_symlink():
        return None
    pointed_at = link.parent / link.readlink()
    if pointed_at.exists() and not any(files.is_same(pointed_at, each) for each in emptied):
        return pointed_at.name
    folders = (project.from_root(row["adapter_path"]) for row in registry.list_runs(db) if row["imported_from"] is None)
    newest = next((path for path in folders if path.is_dir() and files.is_same(path.parent, link.parent)), None)
    if newest is not None:
        point_at(project, newest)
        return newest.name
    with suppress(OSError):
        link.unlink()
    return None
