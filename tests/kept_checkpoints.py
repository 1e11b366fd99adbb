"""What the registry and the disk have of the run in the project `killed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import Ended

from mlxops import registry

Program = Callable[..., Ended]
EVERY_2 = ("--save-every", "2")


def rows(project: Path) -> dict[int, dict[str, Any]]:
    """The checkpoints of the run by iteration."""
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        return {row["iteration"]: row for row in registry.checkpoints_of(db, run["id"])}


def offered(project: Path) -> int | None:
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        rows = registry.checkpoints_of(db, run["id"])
    return next((row["iteration"] for row in rows if row["id"] == run["offered_checkpoint_id"]), None)


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("0*"))


def events(project: Path, kind: str) -> list[dict[str, Any]]:
    with registry.open_read_only(project / "runs.db") as db:
        every = registry.events_of(db, registry.find_run(db, "run")["id"])
    return [event for event in every if event["kind"] == kind]
