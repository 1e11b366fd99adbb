"""What waits for a registry that is away, beside the checkpoints: whole or absent, and brought in by the next command.

A file holds what was made since the checkpoint before it, so that many of them are as large as what waits, once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from mlxops import files, layout
from mlxops.errors import MlxopsError
from mlxops.registry.attempts import close_dead_attempts, extend_lost
from mlxops.registry.carry_over import carry_over, run_of
from mlxops.registry.database import Registry, open_registry
from mlxops.registry.entries import Entry, write_again
from mlxops.registry.rows import AttemptRow, RunRow
from mlxops.registry.runs import set_created

_FORMAT = "mlxops-waiting-1"


class WaitingRun(TypedDict):
    """Whose entries a file holds: the run, when it was created, and the attempt's process and its start."""

    name: str
    fingerprint: str
    created_at: str
    started_at: str
    pid: int
    host: str


def waiting_run(run: RunRow, attempt: AttemptRow) -> WaitingRun:
    """What names a run and its attempt in every registry that holds them."""
    return {
        "name": run["name"],
        "fingerprint": run["fingerprint"],
        "created_at": run["created_at"],
        "started_at": attempt["started_at"],
        "pid": attempt["pid"],
        "host": attempt["host"],
    }


def attempt_of(db: Registry, run_id: int, run: WaitingRun) -> int | None:
    """The attempt in this registry, None where it does not hold it."""
    found = db.rows(
        "SELECT id FROM attempts WHERE run_id = ? AND started_at = ? AND pid = ? AND host = ?",
        (run_id, run["started_at"], run["pid"], run["host"]),
    )
    return found[0]["id"] if found else None


def keep(folder: Path, iteration: int, run: WaitingRun, lines: Sequence[str]) -> None:
    """Write what waits beside the checkpoint of an iteration; raises OSError where the disk does not take it."""
    header = json.dumps({"format": _FORMAT, **run})
    files.write_text(folder / layout.waiting_name(iteration), "\n".join([header, *lines]) + "\n")


def keep_past(folder: Path, db: Registry, run_id: int) -> None:
    """Write what a registry that was removed holds of a run into its folder: a registry of this run alone.

    Raises `MlxopsError`, `OSError` or `sqlite3.Error`, with nothing half-written under its name.
    """
    beside = folder / f".{layout.PAST}.partial"
    _remove_database(beside)
    try:
        with open_registry(beside) as past:
            carry_over(db, run_id, past)
        files.sync(beside)
        beside.replace(folder / layout.PAST)
        files.sync(folder)
    finally:
        _remove_database(beside)


def kept(folder: Path) -> list[Path]:
    """The files of a run's folder with what waits, in the order of their making."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if layout.recognise(path.name)[0] == "waiting"), key=lambda path: path.name)


def remove(folder: Path) -> None:
    """Remove what waited once it is in the registry."""
    for path in kept(folder):
        path.unlink(missing_ok=True)


def bring_in(db: Registry, run_id: int, fingerprint: str, folder: Path) -> int:
    """Write what waits in a run's folder into the registry, and remove it from there; returns how many entries.

    What is there already is not written again, so a kill in between costs nothing. A file that cannot be read, or that
    is another run's, stays.
    """
    count = 0
    _bring_in_past(db, run_id, fingerprint, folder / layout.PAST)  # first: it replaces the points
    for path in kept(folder):
        read = _read(path) if path.name != layout.PAST else None
        if read is None or read[0]["fingerprint"] != fingerprint:
            continue
        run, entries = read
        set_created(db, run_id, run["created_at"])
        attempt_id = attempt_of(db, run_id, run)
        for entry in entries:
            write_again(db, run_id, attempt_id, entry)
        if attempt_id is not None and entries:
            extend_lost(db, attempt_id, max(entry.at for entry in entries))
        path.unlink(missing_ok=True)
        count += len(entries)
    return count


def _bring_in_past(db: Registry, run_id: int, fingerprint: str, path: Path) -> None:
    if not path.is_file():
        return
    try:
        with open_registry(path) as past:
            close_dead_attempts(past)
            for row in past.rows("SELECT id, name FROM runs WHERE fingerprint = ?", (fingerprint,)):
                if run_of(db, row["name"], fingerprint) != run_id:
                    return
                carry_over(past, row["id"], db)
    except (MlxopsError, sqlite3.Error):
        return  # it stays
    _remove_database(path)


def _remove_database(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _read(path: Path) -> tuple[WaitingRun, list[Entry]] | None:
    try:
        first, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        header = json.loads(first)
        if header.pop("format") != _FORMAT:
            return None
        return header, [Entry.from_json(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
