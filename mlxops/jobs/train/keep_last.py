"""Keeping as many checkpoints as asked for while a run trains: rows are marked first, then files are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlxops import files, registry, words
from mlxops.errors import Failed
from mlxops.events import Notice
from mlxops.registry import CheckpointRow
from mlxops.registry.away import Writer
from mlxops.training import checkpoints, retention
from mlxops.training.retention import Kept


class Keeper:
    """Removes all but the last `keep_last` checkpoints of one run (None: nothing), and says what it freed.

    With the run's `writer`, nothing is removed while the registry is away: that is done after a later checkpoint.
    """

    def __init__(
        self, db: registry.Registry, run_id: int, folder: Path, keep_last: int | None, writer: Writer | None = None
    ) -> None:
        self._db, self._run_id, self._folder, self._keep_last = db, run_id, folder, keep_last
        self._writer = writer
        self._told: set[str] = set()

    def prune(self, iteration: int | None = None) -> list[Notice]:
        """Remove what goes, and what a kill or a refusal left of what was to go; returns what there is to say."""
        if self._keep_last is None:
            return []
        if self._writer is None:
            return self._prune(self._keep_last, self._run_id, iteration)
        if self._writer.place is None:
            return []
        try:
            return self._prune(self._keep_last, self._writer.place.run_id, iteration)
        except Failed:
            return []

    def _prune(self, keep_last: int, run_id: int, iteration: int | None) -> list[Notice]:
        rows = registry.checkpoints_of(self._db, run_id)
        sizes = {path.name: path.stat().st_size for path in files.matching(self._folder, "*.safetensors")}
        plan = retention.plan(kept(rows, registry.branch_points(self._db, run_id), sizes), keep_last=keep_last)
        if plan.states or plan.adapters:
            registry.mark_pruned(self._db, run_id, states=plan.states, adapters=plan.adapters)
        left_states, left_adapters = left_over(rows, sizes)
        freed, failed = checkpoints.remove(
            self._folder, states=[*left_states, *plan.states], adapters=[*left_adapters, *plan.adapters]
        )
        said = []
        if freed:
            message = f"{words.size(freed)} freed by --keep-last {keep_last:,}"
            detail = {"bytes": freed, "iterations": list(plan.adapters)}
            said.append(Notice(kind="pruned", message=message, iteration=iteration, detail=detail))
        for name in sorted(failed.keys() - self._told):
            message = f"{name} cannot be removed and is tried again later: {failed[name]}"
            said.append(Notice(kind="not removed", message=message, iteration=iteration, level="warning"))
        self._told |= failed.keys()
        return said


def catch_up(db: registry.Registry, run_id: int, folder: Path, keep_last: int | None) -> None:
    """Prune what a training that was killed after its last checkpoint still had to, and record it."""
    for notice in Keeper(db, run_id, folder, keep_last).prune():
        registry.add_event(db, run_id, None, kind=notice.kind, level=notice.level, message=notice.message)


def kept(rows: Sequence[CheckpointRow], branch_points: set[int], sizes: Mapping[str, int]) -> list[Kept]:
    """The checkpoints that rows and disk agree on; `sizes` holds the bytes of the folder's files by name.

    Beside a closing validation that a longer run has not, the best of those that it has is kept as well.
    """
    found = []
    losses = [
        (row["validation_loss"], row["iteration"])
        for row in rows
        if row["status"] == "whole" and row["validation_loss"] is not None and row["closing_elapsed_ms"] is None
    ]
    best = min(losses)[1] if losses else None
    for row in rows:
        if row["status"] != "whole" or row["adapter_file"] not in sizes:
            continue
        state = row["state_file"] if row["state_pruned_at"] is None and row["state_file"] in sizes else None
        found.append(
            Kept(
                iteration=row["iteration"],
                has_state=state is not None,
                adapter_bytes=sizes[row["adapter_file"]],
                state_bytes=sizes[state] if state is not None else 0,
                is_best=bool(row["is_best"]) or row["iteration"] == best,
                is_branch_point=row["iteration"] in branch_points,
            )
        )
    return found


def left_over(rows: Sequence[CheckpointRow], sizes: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """The iterations whose state, and those whose adapter, is still there although its row says that it went."""
    states = [
        row["iteration"]
        for row in rows
        if (row["status"] == "pruned" or row["state_pruned_at"]) and row["state_file"] in sizes
    ]
    adapters = [row["iteration"] for row in rows if row["status"] == "pruned" and row["adapter_file"] in sizes]
    return states, adapters
