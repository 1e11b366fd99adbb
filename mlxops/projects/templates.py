"""Project folders from templates: files that are missing are written, and none that is there is touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import Template

from mlxops import files, resources

# Templates are stored without the dot that would hide them, and Python not as Python, which pip would compile.
_DOTTED = {"gitignore"}


def write_project(folder: Path, template: str, values: Mapping[str, str]) -> None:
    """Write the missing files of a template into a folder; `values` fill in its `$names`."""
    source = resources.folder("templates") / "project" / template
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        text = Template(file.read_text(encoding="utf-8")).substitute(values)
        _write(folder / file.parent.relative_to(source) / _name(file), text)
    link_environment(folder)


def write_data(folder: Path, name: str) -> None:
    """Write the missing files of sample data into a folder."""
    for file in sorted((resources.folder("templates") / "data" / name).iterdir()):
        _write(folder / file.name, file.read_text(encoding="utf-8"))


def link_environment(folder: Path) -> None:
    """Make `.venv` point at the environment of this process, so that any `inv` finds mlxops in the project.

    Nothing happens outside a virtual environment, or where there is a `.venv`; a link to nowhere, as a moved project
    has it, is made again.
    """
    link = folder / ".venv"
    if sys.prefix == sys.base_prefix or link.exists():
        return
    with suppress(OSError):  # a file system without links, or another process was first
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(Path(sys.prefix).resolve(), folder.resolve()), target_is_directory=True)


def _name(file: Path) -> str:
    name = file.name.removesuffix(".tmpl")
    return f".{name}" if name in _DOTTED else name


def _write(target: Path, text: str) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(target, text)
