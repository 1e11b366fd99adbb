"""The projects of this machine that hold or timed models, known by a small file for each in the user's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mlxops import files

_FOLDER = "projects"


def remember(cache: Path | None, root: Path) -> None:
    """Keep the place of a project; where the cache cannot be written, it stays unknown."""
    if cache is None:
        return
    place = str(root.resolve())
    file = cache / _FOLDER / hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(file, place)
    except (OSError, UnicodeEncodeError):  # it only shows models elsewhere
        return


def others(cache: Path | None, root: Path) -> list[Path]:
    """The other projects that are known and still there, by name. Those that are gone are forgotten."""
    found = []
    try:
        known = sorted((cache / _FOLDER).iterdir()) if cache is not None else []
    except OSError:
        return []
    for file in known:
        try:
            place = Path(file.read_text(encoding="utf-8"))
            if not file.name.startswith(".") and not place.is_dir():
                file.unlink()
        except (OSError, UnicodeDecodeError, ValueError):
            continue
        if place.is_dir() and not files.is_same(place, root):
            found.append(place)
    return sorted(found, key=lambda each: (each.name.casefold(), each))
