"""Where the SQL files and the templates are: inside an installed package, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder `db` or `templates` that ships with this version."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def checkout() -> Path | None:
    """The clone of the repository that this package is used from; None for an installed copy."""
    folder = PACKAGE.parent
    is_clone = (folder / "pyproject.toml").is_file() and (folder / "install.sh").is_file()
    return folder if is_clone else None
