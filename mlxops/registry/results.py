"""What came of a run: how it was evaluated, what it answered, how fast each attempt was and what memory it took."""

from __future__ import annotations

from typing import Any

from mlxops.registry.database import Registry

_EVALUATIONS = """
    SELECT
        evaluations.id, checkpoints.iteration, evaluations.kind, evaluations.data, evaluations.data_sha256,
        evaluations.rows, evaluations.seconds, evaluations.created_at,
        (SELECT count(*) FROM answers WHERE evaluation_id = evaluations.id) AS answers
    FROM evaluations
    LEFT JOIN checkpoints ON checkpoints.id = evaluations.checkpoint_id
    WHERE evaluations.run_id = ?
    ORDER BY evaluations.id
"""

_SCORES = """
    SELECT scores.evaluation_id, scores.metric, scores.value, scores.standard_error, base.value AS base_value
    FROM evaluations
    CROSS JOIN scores ON scores.evaluation_id = evaluations.id
    LEFT JOIN scores AS base ON base.evaluation_id = evaluations.base_evaluation_id AND base.metric = scores.metric
    WHERE evaluations.run_id = ?
    ORDER BY scores.evaluation_id, scores.metric
"""

_ANSWERS = """
    SELECT evaluation_id, iteration, row, prompt, expected, base_answer, answer
    FROM answer
    WHERE evaluation_id = (
        SELECT max(evaluations.id)
        FROM evaluations
        CROSS JOIN answers ON answers.evaluation_id = evaluations.id
        WHERE evaluations.run_id = ?
    )
    ORDER BY row
    LIMIT ?
"""


def evaluations_of(db: Registry, run_id: int) -> list[dict[str, Any]]:
    """A run's evaluations from old to new, each with the number of its `answers` and its `scores`.

    A score has metric, value, standard_error and base_value, that of the evaluation it is compared with.
    """
    found = db.rows(_EVALUATIONS, (run_id,))
    scores: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in found}
    for score in db.rows(_SCORES, (run_id,)):
        scores[score.pop("evaluation_id")].append(score)
    return [{**row, "scores": scores[row["id"]]} for row in found]


def last_answers(db: Registry, run_id: int, limit: int) -> list[dict[str, Any]]:
    """The first answers of a run's newest evaluation that has any: row, prompt, expected, base_answer, answer."""
    return db.rows(_ANSWERS, (run_id, limit))


def curve_summary(db: Registry, run_id: int) -> dict[str, dict[str, Any]]:
    """The row of `series` of each of a run's curves, by the name of the curve."""
    return {
        row["name"]: row
        for row in db.rows(
            """
            SELECT metric_names.name, series.*
            FROM series
            CROSS JOIN metric_names ON metric_names.id = series.name_id
            WHERE series.run_id = ?
            """,
            (run_id,),
        )
    }
