"""A benchmark of a model: its shapes in turn, every trial recorded, and what changed since the last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops import files, registry
from mlxops.analysis.change import Change, change
from mlxops.config import BenchmarkConfig
from mlxops.errors import BadRequest
from mlxops.jobs.eval import loading, memory
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.projects import known_projects, machine
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel
    from mlxops.models.speed import Shape, Timed

Progress = Callable[[str, int, int], None]

COMPARED = ("prompt_tokens_per_second", "generation_tokens_per_second")
"""The figures that are compared with those of the benchmark before."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A benchmark that is checked: a loaded model and the shapes to time."""

    invocation: Invocation
    config: BenchmarkConfig
    chosen: ChosenModel
    loaded: LoadedModel
    load_seconds: float
    shapes: tuple[Shape, ...]
    prompt: tuple[int, ...] | None
    model_identity: str


@dataclass(frozen=True, kw_only=True)
class Changed:
    """How a figure of a shape moved since the benchmark before."""

    shape: Shape
    metric: str
    change: Change


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark found: its figures as the view `benchmark_summary` has them, and the benchmark before.

    `before_project` is the project that one is in, None for this one.
    """

    id: int
    model: str
    adapter: str | None
    host: str
    device: str
    versions: dict[str, str]
    load_seconds: float
    iterations: int
    trials: int
    is_interrupted: bool
    figures: tuple[registry.BenchmarkSummaryView, ...]
    before: registry.BenchmarkRow | None
    before_project: Path | None
    changes: tuple[Changed, ...]


def plan(invocation: Invocation, config: BenchmarkConfig, tell: Callable[[str], None] = lambda note: None) -> Plan:
    """Load the model that a person names, and check that every shape fits it; its memory is told of before.

    Raises `BadRequest` and `NotFound` for what is not there or does not fit.
    """
    from mlxops.models import speed

    _check_prompt(config)
    chosen = loading.choose_as(invocation, config)
    with registry.open_registry(invocation.project.registry_path):
        pass  # what cannot be recorded is known before the work
    for note in memory.notes(invocation, chosen):
        tell(note)
    started = time.perf_counter()
    loaded = loading.load(invocation, chosen, draft_model=config.draft_model)
    load_seconds = time.perf_counter() - started
    prompt = _prompt_of(loaded, config, chosen)
    lengths = config.prompt_tokens if prompt is None else [len(prompt)]
    every = product(config.context, lengths, config.generation_tokens, config.batch_size)
    shapes = tuple(
        speed.Shape(context_tokens=context, prompt_tokens=length, generated_tokens=made, batch_size=batch)
        for context, length, made, batch in dict.fromkeys(every)
    )
    speed.check(loaded, shapes)
    return Plan(
        invocation=invocation,
        config=config,
        chosen=chosen,
        loaded=loaded,
        load_seconds=load_seconds,
        shapes=shapes,
        prompt=prompt,
        model_identity=loading.identify(invocation.project, chosen.folder)(),
    )


def measure(plan: Plan, progress: Progress) -> Result:
    """Time every shape once for nothing and then `iterations` times, one shape after the other in each round.

    So heat, and other work on the machine, reaches all of them alike. Each trial is recorded when it ends; Ctrl-C
    leaves those there are, and the result says so.
    """
    from mlxops.models import speed

    total, made, is_interrupted = len(plan.shapes) * plan.config.iterations, 0, False
    with registry.open_registry(plan.invocation.project.registry_path) as db:
        benchmark_id = _record(db, plan)
        try:
            progress("trials", 0, total)
            for shape in plan.shapes:
                speed.time_request(plan.loaded, shape, plan.prompt)
            for shape in plan.shapes * plan.config.iterations:
                timed = speed.time_request(plan.loaded, shape, plan.prompt)
                made += 1
                registry.add_trial(db, benchmark_id, made, _trial(timed))
                progress("trials", made, total)
        except KeyboardInterrupt:
            registry.mark_interrupted(db, benchmark_id)
            is_interrupted = True
        return _result(db, plan, benchmark_id, made, is_interrupted)


def _check_prompt(config: BenchmarkConfig) -> None:
    if config.prompt is not None and not config.prompt.strip():
        raise BadRequest("--prompt is empty", hint="`--prompt-tokens N` takes drawn tokens instead")


def _prompt_of(loaded: LoadedModel, config: BenchmarkConfig, chosen: ChosenModel) -> tuple[int, ...] | None:
    """The tokens of the message that is asked, as chat writes it; None for drawn tokens."""
    if config.prompt is None:
        return None
    from mlxops.jobs.eval import speaking

    template_config = chosen.adapter.template_config if chosen.adapter else {}
    asked = speaking.prompt_of(loaded, [{"role": "user", "content": config.prompt}], 1, template_config)
    return tuple(asked.tokens)


def _record(db: registry.Registry, plan: Plan) -> int:
    project, config, adapter = plan.invocation.project, plan.config, plan.chosen.adapter
    device = machine.device()
    return registry.record_benchmark(
        db,
        run_id=adapter.run_id if adapter else None,
        model=project.relative(plan.chosen.folder),
        adapter_path=project.relative(adapter.adapter.file) if adapter else None,
        config={
            "prompt": config.prompt,
            "prompt_tokens": [] if config.prompt is not None else config.prompt_tokens,
            "generation_tokens": config.generation_tokens,
            "context": config.context,
            "batch_size": config.batch_size,
            "iterations": config.iterations,
            "draft_model": config.draft_model,
            "model_identity": plan.model_identity,
            "adapter_sha256": adapter.adapter.sha256 if adapter else None,
        },
        load_seconds=plan.load_seconds,
        host=str(machine.facts()["host"]),
        device=f"{device['kind']}: {device['name']}",
        environment={**machine.facts(), "versions": machine.versions()},
    )


def _trial(timed: Timed) -> registry.Trial:
    shape = timed.shape
    return registry.Trial(
        prompt_tokens=shape.prompt_tokens,
        context_tokens=shape.context_tokens,
        batch_size=shape.batch_size,
        generated_tokens=shape.generated_tokens,
        time_to_first_token=timed.first_token_seconds,
        prompt_tokens_per_second=timed.prompt_tokens_per_second,
        generation_tokens_per_second=timed.generation_tokens_per_second,
        token_latencies=timed.token_latencies,
        peak_memory=timed.peak_memory,
        active_memory=timed.active_memory,
        seconds=timed.seconds,
    )


def _result(db: registry.Registry, plan: Plan, benchmark_id: int, made: int, is_interrupted: bool) -> Result:
    from mlxops.models.speed import Shape

    figures = registry.benchmark_summary(db, benchmark_id)
    before, trials, place = _before(db, plan, benchmark_id)
    changes = []
    if before is not None:
        now, then = _by_shape(registry.trials_of(db, benchmark_id)), _by_shape(trials)
        for key in now.keys() & then.keys():
            for metric in COMPARED:
                found = change(_values(then[key], metric), _values(now[key], metric))
                if found is not None:
                    context, prompt, generated, batch = key
                    shape = Shape(
                        context_tokens=context, prompt_tokens=prompt, generated_tokens=generated, batch_size=batch
                    )
                    changes.append(Changed(shape=shape, metric=metric, change=found))
    adapter, device = plan.chosen.adapter, machine.device()
    order = [_key(shape) for shape in plan.shapes]
    return Result(
        id=benchmark_id,
        model=plan.invocation.project.relative(plan.chosen.folder),
        adapter=adapter.label if adapter else None,
        host=str(machine.facts()["host"]),
        device=f"{device['kind']}: {device['name']}",
        versions=machine.versions(),
        load_seconds=plan.load_seconds,
        iterations=plan.config.iterations,
        trials=made,
        is_interrupted=is_interrupted,
        figures=tuple(figures),
        before=before if changes else None,
        before_project=place if changes else None,
        changes=tuple(sorted(changes, key=lambda each: (order.index(_key(each.shape)), COMPARED.index(each.metric)))),
    )


def _before(
    db: registry.Registry, plan: Plan, benchmark_id: int
) -> tuple[registry.BenchmarkRow | None, Sequence[registry.TrialRow], Path | None]:
    """The last benchmark before of the same model and adapter on this machine, its trials, and its project if another.

    Projects of this machine are known by the user's cache, and then they know this one.
    """
    project, adapter, device = plan.invocation.project, plan.chosen.adapter, machine.device()
    cache = plan.invocation.cache or machine.user_cache()
    known_projects.remember(cache, project.root)
    own = registry.benchmark_before(db, benchmark_id)
    places = [Project.at(root).registry_path for root in known_projects.others(cache, project.root)]
    elsewhere = registry.last_benchmark_elsewhere(
        [path for path in places if not files.is_same(path, project.registry_path)],
        host=str(machine.facts()["host"]),
        device=f"{device['kind']}: {device['name']}",
        model_identity=plan.model_identity,
        adapter_sha256=adapter.adapter.sha256 if adapter else None,
        draft_model=plan.config.draft_model,
    )
    if elsewhere is not None and (own is None or elsewhere.row["created_at"] > own["created_at"]):
        return elsewhere.row, elsewhere.trials, elsewhere.registry.parent
    return own, registry.trials_of(db, own["id"]) if own else (), None


Key = tuple[int, int, int, int]


def _key(shape: Shape) -> Key:
    return shape.context_tokens, shape.prompt_tokens, shape.generated_tokens, shape.batch_size


def _by_shape(trials: Sequence[registry.TrialRow]) -> dict[Key, list[registry.TrialRow]]:
    found: dict[Key, list[registry.TrialRow]] = {}
    for each in trials:
        key = (each["context_tokens"], each["prompt_tokens"], each["generated_tokens"], each["batch_size"])
        found.setdefault(key, []).append(each)
    return found


def _values(trials: Sequence[registry.TrialRow], metric: str) -> list[float]:
    if metric == "prompt_tokens_per_second":
        values = [each["prompt_tokens_per_second"] for each in trials]
    else:
        values = [each["generation_tokens_per_second"] for each in trials]
    return [value for value in values if value is not None]
