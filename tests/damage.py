"""Damage to a run's folder, as disks and people do it."""

from __future__ import annotations

from pathlib import Path


def flip(name: str, folder: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def truncate(name: str, folder: Path) -> None:
    """Leave half of a file."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def remove(name: str, folder: Path) -> None:
    """Leave no file."""
    (folder / name).unlink()


def forget(project: Path) -> None:
    """Delete the registry."""
    for file in project.glob("runs.db*"):
        file.unlink()
