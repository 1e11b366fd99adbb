"""Giving a run another name: its row, and what else in the registry names the run or its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlxops import layout
from mlxops.errors import Busy, Refused
from mlxops.registry.database import Registry
from mlxops.registry.rows import JsonObject, RunRow
from mlxops.registry.runs import to_json

Move = Callable[[], None]
"""What moves a run's folder."""

_WITH_FOLDERS = ("evaluations", "benchmarks", "verdicts")


@dataclass(frozen=True, kw_only=True)
class NewName:
    """A run's name, and where its folder is as the registry has it: `before` and `after` are equal if it stays."""

    was: str
    name: str
    before: str
    after: str


def rename_run(db: Registry, run_id: int, new: NewName, move: Move) -> list[RunRow]:
    """Give a run another name, in its row and wherever the registry has the old one; returns the run and its branches.

    `move` moves the folder. It is called within the transaction, before it is committed: a kill in between leaves a row
    whose folder is under another name, which the same command and a resume find. Raises `Refused` for a name that
    another run has, `Busy` where the run or a branch of it is at work.
    """
    with db.transaction(durable=True) as connection:
        check_renamable(db, run_id, new.name)
        connection.execute("UPDATE runs SET name = ?, adapter_path = ? WHERE id = ?", (new.name, new.after, run_id))
        for row in _run_and_branches(db, run_id):
            config = renamed_config(row["config"], new, is_own=row["id"] == run_id)
            connection.execute("UPDATE runs SET config = ? WHERE id = ?", (to_json(config), row["id"]))
        for table in _WITH_FOLDERS:
            connection.execute(
                f"""
                UPDATE {table}
                SET adapter_path = :after || substr(adapter_path, length(:before) + 1)
                WHERE adapter_path = :before OR substr(adapter_path, 1, length(:before) + 1) = :before || '/'
                """,
                {"before": new.before, "after": new.after},
            )
        connection.execute(
            "INSERT INTO events (run_id, kind, message) VALUES (?, 'renamed', ?)",
            (run_id, f"renamed from {new.was} to {new.name}"),
        )
        found = _run_and_branches(db, run_id)
        move()
    return found


def renamed_config(config: JsonObject, new: NewName, *, is_own: bool) -> JsonObject:
    """The settings of a run, or of a branch of it, with the new name and folder in place of the old ones."""
    changed = dict(config)
    if is_own:
        changed |= {"name": new.name} if changed.get("name") is not None else {}
        changed |= {"adapter_path": new.after} if changed.get("adapter_path") is not None else {}
    if origin := changed.get("origin"):
        changed["origin"] = {
            **origin,
            "run": new.name if origin.get("run") == new.was and not is_own else origin.get("run"),
            "folder": new.after if origin.get("folder") == new.before else origin.get("folder"),
        }
    return changed


def check_renamable(db: Registry, run_id: int, name: str) -> None:
    """Raise `Refused` for a name that another run has, `Busy` where the run or a branch of it is at work."""
    taken = [row["name"] for row in db.rows("SELECT name FROM runs WHERE id != ?", (run_id,))]
    if (there := layout.known_spelling(name, taken)) in taken:
        raise Refused(f"there is a run {there!r} already", hint="`inv runs` shows the names that are taken")
    at_work = db.rows(
        """
        SELECT run_summary.name
        FROM run_summary
        JOIN runs ON runs.id = run_summary.id
        WHERE run_summary.status = 'running' AND (runs.id = :run OR runs.parent_id = :run)
        """,
        {"run": run_id},
    )
    if at_work:
        raise Busy(
            f"the run {at_work[0]['name']!r} is at work",
            hint=f"`inv train.stop {at_work[0]['name']}` has it save and stop",
        )


def _run_and_branches(db: Registry, run_id: int) -> list[RunRow]:
    return db.rows("SELECT * FROM runs WHERE ? IN (id, parent_id) ORDER BY id", (run_id,), of=RunRow)
