"""Several models on the same rows: each is tested and recorded, then every one is compared with the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from mlxops import registry
from mlxops.config import CompareModelsConfig, MeasuringConfig, TestConfig
from mlxops.errors import BadRequest
from mlxops.jobs.eval import lm_eval_tasks, loading, results, test
from mlxops.jobs.eval.results import TestResults
from mlxops.jobs.eval.test import TestPlan
from mlxops.projects.invocation import Invocation
from mlxops.registry.places import run_and_place

if TYPE_CHECKING:
    from mlxops.evaluation.comparison import Compared

_MOST = 8

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of a comparison: what it was called, what it scored, and how that differs from the first one's."""

    name: str
    results: TestResults
    compared: tuple[Compared, ...]


def plan(invocation: Invocation, config: CompareModelsConfig, progress: Progress) -> list[tuple[str, TestPlan]]:
    """Check every model and the rows before the first is loaded.

    Raises `BadRequest`, `NotFound` and `InvalidData` for what is not there or does not fit.
    """
    lm_eval_tasks.check_options(config)
    names = config.models
    if not 2 <= len(names) <= _MOST:
        raise BadRequest(
            f"eval.compare takes 2 to {_MOST} models, not {len(names)}",
            hint="`inv eval.compare 1,2`; `inv runs` shows the numbers",
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadRequest(f"{twice[0]!r} stands there twice")
    runs = {name for name in names if loading.is_run(invocation, name)}
    for name in names:
        if name not in runs:
            loading.choose(invocation, model=name, trust_remote_code=config.trust_remote_code)
    data, shared = config.data, {each.name: getattr(config, each.name) for each in fields(MeasuringConfig)}
    if config.tasks:
        shared["max_seq_length"] = None
    elif data is None and not runs:
        raise BadRequest("models alone know no data", hint="`--data data/test.jsonl` says which rows")
    else:
        data = data or _data_of(invocation, next(name for name in names if name in runs))
    found = []
    for name in names:
        one = TestConfig(
            model=None if name in runs else name,
            run=name if name in runs else None,
            data=data,
            trust_remote_code=config.trust_remote_code,
            **shared,
        )
        found.append((name, test.plan(invocation, one, progress)))
    return found


def run(plans: Sequence[tuple[str, TestPlan]], progress: Progress, entries: list[Entry]) -> None:
    """Test one model after the other, each into `entries` when it is done and recorded."""
    from mlxops.evaluation.comparison import compare

    for name, each in plans:
        measured: list[TestResults] = []
        test.run(each, partial(_of_one, progress, name), measured)
        (found,) = measured
        compared: list[Compared] = []
        if entries:
            of_first = {measure.metric: measure for measure in entries[0].results.tuned.measures}
            for measure in found.tuned.measures:
                first = of_first.get(measure.metric)
                # a model whose template refuses a row was asked others
                if first is not None and list(first.rows) == list(measure.rows):
                    compared.append(compare(first, measure, seed=each.config.seed))
        entries.append(Entry(name=name, results=found, compared=tuple(compared)))


def _of_one(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def to_json(entries: Sequence[Entry]) -> list[registry.JsonObject]:
    """The comparison as `--json` writes it: of every model what `inv test` writes, compared with the first."""
    return [
        {**results.to_json(entry.results), "name": entry.name, "compared": results.compared_to_json(entry.compared)}
        for entry in entries
    ]


def _data_of(invocation: Invocation, name: str) -> str | None:
    with registry.open_read_only(invocation.project.registry_path) as db:
        run, _ = run_and_place(db, name)
    return str(invocation.project.from_root(run["data"]))
