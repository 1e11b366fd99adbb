"""Evaluations: what was asked of a model or of a checkpoint, what it answered, and how good that was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from mlxops.registry.database import Registry
from mlxops.registry.rows import JsonObject
from mlxops.registry.views import AnswerView


class ComparedScore(TypedDict):
    """A score of an evaluation; `base_value` is that of the evaluation it is compared with, where there is one."""

    metric: str
    value: float | None
    standard_error: float | None
    base_value: float | None


class ScoredEvaluation(TypedDict):
    """An evaluation of a run: what was asked where, how many answers there are, and its scores."""

    id: int
    iteration: int | None
    kind: str
    data: str
    data_sha256: str
    rows: int
    seconds: float | None
    created_at: str
    answers: int
    scores: list[ComparedScore]


class GivenAnswer(TypedDict):
    """An answer of an evaluation, beside what the model said without the adapter where that was asked too."""

    evaluation_id: int
    iteration: int | None
    row: int
    prompt: str
    expected: str | None
    base_answer: str | None
    answer: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said to one row of the data; `row` counts from 1."""

    row: int
    prompt: str
    expected: str | None
    answer: str
    scores: JsonObject | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of an evaluation; None where it is not finite or not known."""

    metric: str
    value: float | None
    standard_error: float | None = None


def record_evaluation(
    db: Registry,
    *,
    run_id: int | None,
    iteration: int | None = None,
    base_evaluation_id: int | None = None,
    model: str,
    adapter_path: str | None,
    data: str,
    data_sha256: str,
    kind: str,
    config: JsonObject,
    answers: Sequence[Answer] = (),
    scores: Sequence[Score] = (),
    rows: int | None = None,
    seconds: float | None = None,
) -> int:
    """Record an evaluation with its scores and answers, and return its id.

    `run_id` None is the model without a run's adapter; `iteration` names the run's checkpoint, where it has one there.
    `rows` counts the rows of the data, as many as there are answers unless given.
    """
    with db.transaction() as connection:
        ((evaluation_id,),) = connection.execute(
            """
            INSERT INTO evaluations (run_id, checkpoint_id, base_evaluation_id, model, adapter_path, data, data_sha256,
                kind, config, rows, seconds)
            VALUES (:run, (SELECT id FROM checkpoints WHERE run_id = :run AND iteration = :iteration), :base, :model,
                :adapter_path, :data, :data_sha256, :kind, :config, :rows, :seconds)
            RETURNING id
            """,
            {
                "run": run_id,
                "iteration": iteration,
                "base": base_evaluation_id,
                "model": model,
                "adapter_path": adapter_path,
                "data": data,
                "data_sha256": data_sha256,
                "kind": kind,
                "config": json.dumps(dict(config), allow_nan=False),
                "rows": len(answers) if rows is None else rows,
                "seconds": seconds,
            },
        ).fetchall()
        connection.executemany(
            "INSERT INTO scores (evaluation_id, metric, value, standard_error) VALUES (?, ?, ?, ?)",
            [(evaluation_id, each.metric, each.value, each.standard_error) for each in scores],
        )
        connection.executemany(
            "INSERT INTO answers (evaluation_id, row, prompt, expected, answer, scores) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (evaluation_id, each.row, each.prompt, each.expected, each.answer, _json(each.scores))
                for each in answers
            ],
        )
    return int(evaluation_id)


def _json(scores: JsonObject | None) -> str | None:
    return None if scores is None else json.dumps(dict(scores), allow_nan=False, ensure_ascii=False)


def fuse_evaluation(db: Registry, fused_id: str, *, is_after: bool) -> int | None:
    """The evaluation that records how a fused model was compared: that of the model, or of base and adapter before."""
    found = db.connection.execute(
        """
        SELECT id
        FROM evaluations
        WHERE kind = 'fuse' AND config ->> '$.fused' = ? AND (adapter_path IS NULL) = ?
        ORDER BY id
        LIMIT 1
        """,
        (fused_id, is_after),
    ).fetchone()
    return None if found is None else int(found[0])


def answers_of(db: Registry, run: str, *, iteration: int, data_sha256: str | None = None) -> list[AnswerView]:
    """What a run's checkpoint answered to this data, or to whatever it was asked, the newest time: in order."""
    return db.rows(
        """
        SELECT *
        FROM answer
        WHERE evaluation_id = (
            SELECT max(evaluation_id)
            FROM answer
            WHERE run = :run AND iteration = :iteration AND kind = 'answers'
                AND (:data_sha256 IS NULL OR data_sha256 = :data_sha256)
        )
        ORDER BY row
        """,
        {"run": run, "iteration": iteration, "data_sha256": data_sha256},
        of=AnswerView,
    )


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


def evaluations_of(db: Registry, run_id: int) -> list[ScoredEvaluation]:
    """A run's evaluations from old to new."""
    found = db.rows(_EVALUATIONS, (run_id,), of=ScoredEvaluation)
    for row in found:
        row["scores"] = []
    evaluations = {row["id"]: row for row in found}
    for evaluation_id, *score in db.connection.execute(_SCORES, (run_id,)).fetchall():
        metric, value, error, base = score
        evaluations[evaluation_id]["scores"].append(
            {"metric": metric, "value": value, "standard_error": error, "base_value": base}
        )
    return found


def last_answers(db: Registry, run_id: int, limit: int) -> list[GivenAnswer]:
    """The first answers of a run's newest evaluation that has any."""
    return db.rows(_ANSWERS, (run_id, limit), of=GivenAnswer)
