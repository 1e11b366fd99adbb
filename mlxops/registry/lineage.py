"""Families of runs: who branched from whom."""

from __future__ import annotations

from typing import TypedDict

from mlxops.registry.database import Registry


class FamilyMember(TypedDict):
    """A run of a family; `branch_iteration` is its parent's at which it began, `generations` from the first run."""

    run: str
    parent: str | None
    branch_iteration: int | None
    generations: int
    status: str
    iteration: int
    target_iterations: int
    best_validation_loss: float | None
    best_iteration: int | None


def family_of(db: Registry, run_id: int) -> list[FamilyMember]:
    """All runs that stem from the same first run as this one, parents before children, the older child first."""
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
        of=FamilyMember,
    )
