"""Project folders from templates: files that are missing are written, and none that is there is touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mlxops import files, resources
from mlxops.projects import entering

# Templates are stored without the dot that would hide them, and Python not as Python, which pip would compile.
_DOTTED = {"gitignore"}
_PURPOSES = {
    "basic": "settings, sample data and recipes",
    "advanced": "also scripts to change: fine-tune, evaluate, query",
}


def write_project(folder: Path, template: str, values: Mapping[str, str]) -> None:
    """Write the missing files of a template into a folder; `values` fill in its `$names`. Advanced has basic's too."""
    for name in (template, "basic"):
        source = resources.folder("templates") / "project" / name
        for file in files.matching(source, "**/*"):
            text = Template(file.read_text(encoding="utf-8")).substitute(values)
            _write(folder / file.parent.relative_to(source) / _name(file), text)


@dataclass(frozen=True, kw_only=True)
class TemplateInfo:
    """Something to start from: its kind (template, recipe), what it is for, and the command that uses it."""

    kind: str
    name: str
    purpose: str
    command: str


def available() -> list[TemplateInfo]:
    """Every template of a project, then every recipe."""
    folders = [
        TemplateInfo(kind="template", name=name, purpose=purpose, command=f"init my-project --template {name}")
        for name, purpose in _PURPOSES.items()
    ]
    return [*folders, *map(_recipe, _recipes())]


def write_recipes(folder: Path) -> None:
    """Write the missing recipes into a folder."""
    for file in _recipes():
        _write(folder / file.name, file.read_text(encoding="utf-8"))


def _recipes() -> list[Path]:
    return sorted((resources.folder("templates") / "recipes").glob("[!.]*.yaml"))


def _recipe(file: Path) -> TemplateInfo:
    """The first line of a recipe says what it is for, and the second how it is run."""
    purpose, command, *_ = (line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").splitlines())
    return TemplateInfo(
        kind="recipe", name=file.stem, purpose=purpose.partition(": ")[2], command=command.removeprefix("inv ")
    )


def write_data(folder: Path, name: str) -> None:
    """Write the missing files of sample data into a folder."""
    for file in files.matching(resources.folder("templates") / "data" / name, "*"):
        _write(folder / file.name, file.read_text(encoding="utf-8"))


def link_environment(folder: Path) -> None:
    """Make `.venv` point at the environment of this process, so that any `inv` finds mlxops in the project.

    Nothing happens outside a virtual environment, in one without MLX, or where there is a `.venv`; a link to nowhere,
    as a moved project has it, is made again.
    """
    link = folder / ".venv"
    if sys.prefix == sys.base_prefix or not entering.has_mlx() or link.exists():
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
