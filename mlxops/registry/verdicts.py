"""Verdicts: what a person thinks of an answer that a model gave in a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mlxops.registry.database import Registry
from mlxops.registry.rows import JsonObject


class GivenVerdict(TypedDict):
    """What a person thinks of an answer of a run; `iteration` is that of the checkpoint that answered."""

    iteration: int | None
    verdict: str
    prompt: str
    answer: str
    note: str | None
    created_at: str


def verdicts_of(db: Registry, run_id: int) -> list[GivenVerdict]:
    """The verdicts on the answers of a run, from old to new."""
    return db.rows(
        """
        SELECT checkpoints.iteration, verdicts.verdict, verdicts.prompt, verdicts.answer, verdicts.note,
            verdicts.created_at
        FROM verdicts
        LEFT JOIN checkpoints ON checkpoints.id = verdicts.checkpoint_id
        WHERE verdicts.run_id = ?
        ORDER BY verdicts.id
        """,
        (run_id,),
        of=GivenVerdict,
    )


def record_verdict(
    db: Registry,
    *,
    verdict: Literal["good", "bad"],
    run_id: int | None,
    iteration: int | None,
    model: str,
    adapter_path: str | None,
    messages: Sequence[Mapping[str, str]],
    prompt: str,
    answer: str,
    config: JsonObject,
    note: str | None = None,
    verdict_id: int | None = None,
) -> int:
    """Record what a person thinks of an answer, and return the verdict's id.

    `messages` is the conversation with the answer at its end; `verdict_id` is an earlier verdict on the same answer,
    which this one replaces.
    """
    with db.transaction() as connection:
        ((recorded,),) = connection.execute(
            """
            INSERT INTO verdicts (id, run_id, checkpoint_id, model, adapter_path, verdict, messages, prompt, answer,
                config, note)
            VALUES (:id, :run, (SELECT id FROM checkpoints WHERE run_id = :run AND iteration = :iteration), :model,
                :adapter_path, :verdict, :messages, :prompt, :answer, :config, :note)
            ON CONFLICT (id) DO UPDATE SET verdict = excluded.verdict, note = excluded.note
            RETURNING id
            """,
            {
                "id": verdict_id,
                "run": run_id,
                "iteration": iteration,
                "model": model,
                "adapter_path": adapter_path,
                "verdict": verdict,
                "messages": json.dumps([dict(message) for message in messages], ensure_ascii=False),
                "prompt": prompt,
                "answer": answer,
                "config": json.dumps(dict(config), allow_nan=False),
                "note": note,
            },
        ).fetchall()
    return int(recorded)
