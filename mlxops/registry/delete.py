"""Taking runs out of the registry, with all rows that are theirs. The files are another's task."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlxops.errors import Busy, Refused
from mlxops.registry.database import Registry

_THESE = "IN (SELECT value FROM json_each(:runs))"

_COUNTS = f"""
    SELECT
        (SELECT count(*) FROM attempts WHERE run_id {_THESE}) AS attempts,
        (SELECT coalesce(sum(count), 0) FROM series WHERE run_id {_THESE}) AS metrics,
        (SELECT count(*) FROM checkpoints WHERE run_id {_THESE}) AS checkpoints,
        (SELECT count(*) FROM events WHERE run_id {_THESE}) AS events,
        (SELECT count(*) FROM evaluations WHERE run_id {_THESE}) AS evaluations,
        (SELECT count(*) FROM answers JOIN evaluations ON evaluations.id = evaluation_id WHERE run_id {_THESE})
            AS answers,
        (SELECT count(*) FROM benchmarks WHERE run_id {_THESE}) AS benchmarks
"""

_DESCENDANTS = f"""
    WITH RECURSIVE leaving (id) AS (
        SELECT value FROM json_each(:runs)
        UNION
        SELECT child.id FROM runs AS child CROSS JOIN leaving ON child.parent_id = leaving.id
    )
    SELECT child.name, parent.name AS parent
    FROM runs AS child
    CROSS JOIN runs AS parent ON parent.id = child.parent_id
    WHERE child.id IN (SELECT id FROM leaving) AND child.id NOT {_THESE}
    ORDER BY child.id
"""
_NAMES = f"SELECT name FROM runs WHERE id {_THESE} ORDER BY id"


def rows_of_runs(db: Registry, run_ids: Sequence[int]) -> dict[str, int]:
    """How many rows of each table belong to these runs, by the table's name."""
    return db.rows(_COUNTS, _parameters(run_ids))[0]


def check_removable(db: Registry, run_ids: Sequence[int]) -> None:
    """Raise `Refused` where another run branches from one of these, `Busy` where one of them is at work."""
    if children := db.rows(_DESCENDANTS, _parameters(run_ids)):
        all_names = [row["name"] for row in [*db.rows(_NAMES, _parameters(run_ids)), *children]]
        child, parent = children[0]["name"], children[0]["parent"]
        more = f" and {len(children) - 1} more" if len(children) > 1 else ""
        raise Refused(
            f"the run {child!r}{more} branched from {parent!r}, which would be gone",
            hint=f"`inv run.delete {','.join(all_names)}` takes them together",
        )
    at_work = db.rows(
        f"""
        SELECT name, (SELECT host FROM attempts WHERE run_id = run_summary.id ORDER BY number DESC LIMIT 1) AS host
        FROM run_summary
        WHERE id {_THESE} AND status = 'running'
        """,
        _parameters(run_ids),
    )
    if at_work:
        raise Busy(
            f"the run {at_work[0]['name']!r} is being worked on at {at_work[0]['host']}",
            hint="`inv monitor` shows it; stop it first",
        )


def remove_runs(db: Registry, run_ids: Sequence[int]) -> None:
    """Remove these runs and all rows that are theirs, evaluations and benchmarks included, in one transaction.

    Raises what `check_removable` does.
    """
    with db.transaction() as connection:
        check_removable(db, run_ids)
        # without a run they would pass for what the model says without an adapter
        for table in ("evaluations", "benchmarks"):
            connection.execute(f"DELETE FROM {table} WHERE run_id {_THESE}", _parameters(run_ids))
        connection.execute(f"DELETE FROM runs WHERE id {_THESE}", _parameters(run_ids))
    for run_id in run_ids:
        db.created_ms.pop(run_id, None)


def _parameters(run_ids: Sequence[int]) -> dict[str, str]:
    return {"runs": json.dumps(list(run_ids))}
