"""A project: a folder with its registry, models, data and adapters, and what a path means in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlxops import files

_SETTINGS_OF_MLXOPS = re.compile(r"^mlxops\s*:", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project's folders, all absolute. None of them need exist."""

    root: Path
    cwd: Path
    registry_path: Path

    @classmethod
    def at(cls, folder: Path) -> Project:
        """The project that this folder is, with its registry in the usual place."""
        return cls(root=folder, cwd=folder, registry_path=folder / "runs.db")

    @property
    def models_folder(self) -> Path:
        """Where models are found by their name."""
        return self.root / "models"

    @property
    def adapters_folder(self) -> Path:
        """Where each run has its folder."""
        return self.root / "adapters"

    @property
    def prefix_folder(self) -> Path:
        """Where trainings keep hidden states that are too large for the memory."""
        return self.root / ".mlxops" / "prefix"

    def resolve(self, text: str | Path) -> Path:
        """The absolute path that a person means: from the current folder, then the root, then `models/`.

        What is in none of them is meant to be made: from the current folder.
        """
        typed = files.expanded(text)
        candidates = [_normal(base / typed) for base in (self.cwd, self.root, self.models_folder)]
        # what may not be looked at, or has too long a name, is for whoever opens it to say
        return next((path for path in candidates if os.path.exists(path)), candidates[0])  # noqa: PTH110

    def from_root(self, text: str | Path) -> Path:
        """The absolute path of one that stands in a file or in the registry."""
        return _normal(self.root / files.expanded(text))

    def relative(self, path: Path) -> str:
        """The path as it is stored: from the root where it is inside, else absolute.

        A link inside the project that leads out of it counts as inside, so that a moved project finds it again.
        """
        absolute = _normal(self.cwd / path)
        # one place has one name, so that two runs in it are seen to share it
        for candidate in (absolute.resolve(), absolute):
            if candidate.is_relative_to(self.root):
                return candidate.relative_to(self.root).as_posix()
        return str(absolute)

    def as_known(self, path: Path, known: Iterable[str]) -> Path:
        """The path in the spelling of the stored one that is the same folder; the path itself where none is.

        Where a file system ignores case or Unicode normalization, one folder can be typed in several ways.
        """
        if self.relative(path) in (known := list(known)):
            return path
        stored = map(self.from_root, known)
        return next((each for each in stored if files.is_same(each, path)), path)


def find(start: Path, *, registry: str | None = None, registry_setting: str | None = None) -> Project:
    """The project that a folder is in: the nearest folder upward with a `tasks.py`, a `runs.db` or settings of mlxops.

    Without one the folder itself is it. `registry` (MLXOPS_DB) is a path from `start`, and goes before
    `registry_setting` (`registry.path`), which is one from the root.
    """
    cwd = start.resolve()
    root = next((folder for folder in [cwd, *cwd.parents] if _is_project(folder)), cwd)
    if registry:
        registry_path = _normal(cwd / files.expanded(registry))
    else:
        registry_path = _normal(root / files.expanded(registry_setting or "runs.db"))
    return Project(root=root, cwd=cwd, registry_path=registry_path)


def _is_project(folder: Path) -> bool:
    return (folder / "tasks.py").is_file() or (folder / "runs.db").is_file() or _has_settings(folder / "invoke.yaml")


def _has_settings(file: Path) -> bool:
    try:
        return _SETTINGS_OF_MLXOPS.search(file.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False


def _normal(path: Path) -> Path:
    # Unlike resolve() this leaves links as they are.
    return Path(os.path.normpath(path))
