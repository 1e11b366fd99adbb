"""Where the SQL files and the templates are: inside an installed package, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder `db` or `templates` that ships with this version."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
