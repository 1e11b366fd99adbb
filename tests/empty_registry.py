"""A registry without rows, made once by each process of the tests and copied: making one takes five times as long."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mlxops.registry import Registry, open_registry


@cache
def _content() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        open_registry(path).close()
        return path.read_bytes()


def open_empty(path: Path) -> Registry:
    """The registry at a place where none is yet, opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(_content())
    return open_registry(path)
