"""Families of runs: who branched from whom."""

from __future__ import annotations

from typing import Any

from mlxops.registry.database import Registry


def family_of(db: Registry, run_id: int) -> list[dict[str, Any]]:
    """All runs that stem from the same first run as this one, parents before children, the older child first.

    Each has `run`, `parent`, `branch_iteration` (the parent's, at which it began), `generations` from the first run,
    `status`, `iteration`, `target_iterations`, `best_validation_loss` and `best_iteration`.
    """
    return db.rows(
        """
        WITH first AS (
            SELECT ancestor
            FROM run_lineage
            WHERE run = (SELECT name FROM runs WHERE id = ?)
            ORDER BY generations DESC
            LIMIT 1
        )
        SELECT
            lineage.run,
            summary.parent,
            runs.branch_iteration,
            lineage.generations,
            summary.status,
            summary.iteration,
            summary.target_iterations,
            summary.best_validation_loss,
            summary.best_iteration
        FROM run_lineage AS lineage
        JOIN first ON first.ancestor = lineage.ancestor
        JOIN runs ON runs.name = lineage.run
        JOIN run_summary AS summary ON summary.id = runs.id
        ORDER BY lineage.generations, runs.id
        """,
        (run_id,),
    )
