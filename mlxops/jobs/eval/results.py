"""What a test found: written to the registry, and as JSON to a file or to whoever asked for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from mlxops import files, registry
from mlxops.errors import Failed
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.evaluation.answers import ScoredAnswer
    from mlxops.evaluation.comparison import Compared
    from mlxops.evaluation.measures import Measure, MeasuredScore
    from mlxops.evaluation.perplexity import RowLoss

KIND = "test"


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """What one model scored, with the adapter or without one; `evaluation_id` once it is recorded."""

    adapter: str | None
    scores: tuple[MeasuredScore, ...]
    measures: tuple[Measure, ...]
    worst: tuple[RowLoss, ...]
    answers: tuple[ScoredAnswer, ...]
    seconds: float
    evaluation_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class TestResults:
    """The scores of a model, beside those of its base where they were asked for. Paths are as they are stored.

    `config` is all that decides the scores besides model and data, `kind` that of the evaluation in the registry.
    """

    kind: str
    model: str
    data: str
    data_sha256: str
    rows: int
    config: registry.JsonObject
    iteration: int | None
    tuned: MeasuredModel
    base: MeasuredModel | None
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]


def record(project: Project, chosen: ChosenModel, results: TestResults) -> TestResults:
    """Write the results to the registry and return them with their ids; a base that has one is not written again."""
    adapter = chosen.adapter
    with registry.open_registry(project.registry_path) as db:
        run_id = _run_id(db, chosen)
        base, tuned = results.base, results.tuned
        if base is not None and base.evaluation_id is None:
            base = replace(base, evaluation_id=_record(db, results, base, run_id=None))
        tuned = replace(
            tuned,
            evaluation_id=_record(
                db,
                results,
                tuned,
                run_id=run_id,
                iteration=adapter.iteration if adapter else None,
                base_evaluation_id=base.evaluation_id if base else None,
                adapter_path=project.relative(adapter.adapter.file) if adapter else None,
            ),
        )
    return replace(results, base=base, tuned=tuned)


def to_json(results: TestResults) -> registry.JsonObject:
    """The results as `--json` and `--output` write them."""
    of_base = {score.metric: score for score in results.base.scores} if results.base else {}
    return {
        "model": results.model,
        "adapter": results.tuned.adapter,
        "iteration": results.iteration,
        "data": results.data,
        "data_sha256": results.data_sha256,
        "rows": results.rows,
        "evaluation_id": results.tuned.evaluation_id,
        "base_evaluation_id": results.base.evaluation_id if results.base else None,
        "seconds": results.tuned.seconds + (results.base.seconds if results.base else 0),
        "scores": {
            score.metric: {
                "value": score.value,
                "standard_error": score.standard_error,
                "rows": score.rows,
                "better": score.better,
                **({"base_value": of_base[score.metric].value} if score.metric in of_base else {}),
            }
            for score in results.tuned.scores
        },
        "compared": compared_to_json(results.compared),
        "worst_rows": [
            {
                "row": row.origin,
                "perplexity": row.perplexity if math.isfinite(row.perplexity) else None,
                "loss": row.loss / row.tokens if math.isfinite(row.loss) else None,
                "tokens": row.tokens,
            }
            for row in results.tuned.worst
        ],
        "answers": _answers(results),
        "notes": list(results.notes),
    }


def compared_to_json(compared: Sequence[Compared]) -> registry.JsonObject:
    """Differences between two models, by metric."""
    return {
        each.metric: {
            "difference": each.difference,
            "low": each.low,
            "high": each.high,
            "sure": each.sure,
            "improved": list(each.improved),
            "worsened": list(each.worsened),
            "same": list(each.same),
        }
        for each in compared
    }


def all_to_json(measured: Sequence[TestResults], *, is_list: bool) -> registry.JsonObject | list[registry.JsonObject]:
    """The results of one test, or those of every checkpoint as a list."""
    return [to_json(each) for each in measured] if is_list else to_json(measured[0])


def _answers(results: TestResults) -> list[registry.JsonObject]:
    """The answers, each beside that of the base model where that was asked too."""
    of_base = results.base.answers if results.base else ()
    return [
        {
            "row": each.answer.origin,
            "prompt": each.answer.prompt,
            "expected": each.answer.expected,
            "answer": each.answer.text,
            "scores": dict(each.scores),
            **({"base_answer": before.answer.text, "base_scores": dict(before.scores)} if before else {}),
        }
        for each, before in zip_longest(results.tuned.answers, of_base)
    ]


def _run_id(db: registry.Registry, chosen: ChosenModel) -> int | None:
    """The run that the adapter is of, where this registry has it."""
    if chosen.adapter is None or chosen.adapter.run_id is not None or chosen.adapter.adapter.run is None:
        return chosen.adapter.run_id if chosen.adapter else None
    return registry.id_of(db, chosen.adapter.adapter.run)


def _record(
    db: registry.Registry,
    results: TestResults,
    measured: MeasuredModel,
    *,
    run_id: int | None,
    iteration: int | None = None,
    base_evaluation_id: int | None = None,
    adapter_path: str | None = None,
) -> int:
    return registry.record_evaluation(
        db,
        run_id=run_id,
        iteration=iteration,
        base_evaluation_id=base_evaluation_id,
        model=results.model,
        adapter_path=adapter_path,
        data=results.data,
        data_sha256=results.data_sha256,
        kind=results.kind,
        config=results.config,
        scores=[
            registry.Score(metric=score.metric, value=score.value, standard_error=score.standard_error)
            for score in measured.scores
        ],
        answers=[
            registry.Answer(
                row=row,
                prompt=each.answer.prompt,
                expected=each.answer.expected,
                answer=each.answer.text,
                scores={"origin": each.answer.origin, **each.scores},
            )
            for row, each in enumerate(measured.answers, start=1)
        ],
        rows=results.rows,
        seconds=measured.seconds,
    )


def write(project: Project, output: str, as_json: registry.JsonObject | list[registry.JsonObject]) -> None:
    """Write results as JSON to the file of `--output`. Raises `Failed` where that cannot be written."""
    file = project.cwd / files.expanded(output)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps(as_json, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise Failed(
            f"{str(file)!r} cannot be written: {error.strerror}", hint="name another `--output`, or make room"
        ) from error
