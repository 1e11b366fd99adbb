"""Comparing runs: what was set differently, and what came of it at equal iterations, tokens or time at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from mlxops import registry
from mlxops.analysis.align import Curve, axis, common_places, spread, value_at
from mlxops.analysis.significance import Difference, above_lowest
from mlxops.config import CompareConfig, LoraConfig
from mlxops.errors import BadRequest
from mlxops.jobs import commands
from mlxops.jobs.run import effect
from mlxops.jobs.run.comparison import (
    LOSSES,
    AttemptSpeed,
    ComparedBenchmark,
    ComparedEvaluation,
    ComparedSetting,
    Comparison,
    Loss,
    LossDifference,
    LossesAt,
    RunCurves,
    RunLosses,
    RunMemory,
    RunSpeed,
)
from mlxops.options import options_of
from mlxops.projects.invocation import Invocation
from mlxops.registry import (
    AttemptRow,
    BenchmarkSummaryView,
    FoundRun,
    JsonObject,
    MetricPoint,
    NamedSeries,
    Registry,
    RunSummaryView,
    ScoredEvaluation,
)
from mlxops.registry.opening import reading
from mlxops.registry.runs import find_runs, whole_names
from mlxops.training.fingerprint import complete
from mlxops.training.origin import origin_of

FEWEST, MOST = 2, 8
_POINTS = 400  # of a curve, more than a terminal has columns
_PLACES = 8  # at which losses stand side by side

# what one command did, or where its run stands, is no setting of the training
_LEFT_OUT = commands.NO_SETTINGS | {"model", "data"}
_ENVIRONMENT = ("mlx", "mlx-lm", "mlxops", "device", "machine", "blas", "blas_version", "kernels")
_OF_VALIDATION = ("val_batches", "batch_size", "seed")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run with all that is compared of it."""

    row: FoundRun
    config: JsonObject
    in_effect: JsonObject
    summary: RunSummaryView
    attempts: Sequence[AttemptRow]
    evaluations: Sequence[ScoredEvaluation]
    benchmarks: Sequence[BenchmarkSummaryView]
    series: Mapping[str, NamedSeries]
    curves: Mapping[Loss, Curve]
    validations: Sequence[MetricPoint]
    speeds: Curve
    errors: Mapping[int, float | None]


def compare(invocation: Invocation, config: CompareConfig) -> Comparison:
    """The comparison of two to eight runs.

    Raises `NotFound` for a run that is not there, with the nearest names, `BadRequest` for too few or too many.
    """
    names = list(dict.fromkeys(config.runs))
    if len(names) < len(config.runs):
        twice = next(name for name in names if config.runs.count(name) > 1)
        raise BadRequest(f"the run {twice!r} stands there twice", hint="name each run once")
    if not FEWEST <= len(names) <= MOST:
        raise BadRequest(
            f"run.compare takes {FEWEST} to {MOST} runs, not {len(names)}",
            hint="`inv run.compare 1,2`; `inv runs` shows the numbers",
        )
    with reading(invocation.project.registry_path) as db:
        found, names = find_runs(db, names), whole_names(db, names)
        if len(found) < len(names):
            raise BadRequest(
                f"{' and '.join(names)} are not different runs", hint="`inv runs` shows the runs there are"
            )
        layers = effect.layers_of(invocation.project, found)
        runs = [_read(db, row, config.by, layers) for row in found]
    rows = _settings(runs)
    return Comparison(
        runs=[_losses(run) for run in runs],
        by=config.by,
        same_settings=not any(row.differs for row in rows if row.kind == "setting"),
        same_losses=_have_same_losses(runs),
        cautions=_cautions(runs, config.by),
        settings=[row for row in rows if config.all or row.differs],
        differences=_differences(runs),
        curves=[_thinned(run) for run in runs],
        places={"train_loss": _side_by_side(runs, whole=config.by != "time"), "validation_loss": _validations(runs)},
        evaluations=_evaluations(runs),
        benchmarks=_benchmarks(runs),
        speed=[_speed(run) for run in runs],
        memory=[_memory(run) for run in runs],
    )


def _read(db: Registry, row: FoundRun, by: str, layers: int | None) -> _Run:
    def points(name: str) -> list[MetricPoint]:
        return registry.metric_series(db, row["id"], name)

    attempts = registry.attempts_of(db, row["id"])
    # what is imported counts time at work from its start, whatever times the files have
    is_ours = row["imported_from"] is None
    spans = attempts if is_ours else ()
    place = axis(by, points("trained_tokens") if by == "tokens" else (), spans, row["created_at"])
    config = complete(row["config"]) if is_ours else row["config"]
    return _Run(
        row=row,
        config=config,
        in_effect=effect.in_effect(config, layers),
        summary=registry.summary_of(db, row["id"]),
        attempts=attempts,
        evaluations=registry.evaluations_of(db, row["id"]),
        benchmarks=registry.speeds_of(db, row["id"]),
        series=registry.curve_summary(db, row["id"]),
        curves={name: [(place(point), point["value"]) for point in points(name)] for name in LOSSES},
        validations=points("validation_loss"),
        speeds=[(point["iteration"], point["value"]) for point in points("tokens_per_second")],
        errors={
            # of a run that was extended, its best may be a closing validation that is no point of its curve
            **{each["iteration"]: each["closing_standard_error"] for each in registry.checkpoints_of(db, row["id"])},
            **{point["iteration"]: point["value"] for point in points("validation_standard_error")},
        },
    )


# settings -----------------------------------------------------------------------------------------------------------


def _settings(runs: Sequence[_Run]) -> list[ComparedSetting]:
    """Every setting and what else the weights depend on: its value in each run, and whether they differ in effect."""
    options = [each for each in options_of(LoraConfig) if each.role and each.name not in _LEFT_OUT]
    options.sort(key=lambda each: each.role != "weights")
    table: dict[str, list[Any]] = {
        "model": [run.row["model"] for run in runs],
        "model_identity": [run.row["model_identity"] for run in runs],
        "data": [run.row["data"] for run in runs],
        "data_identity": [run.row["data_identity"] for run in runs],
    }
    table["begins_with"] = [_beginning(run.config) for run in runs]
    table["validation_identity"] = [run.config.get("validation_identity") for run in runs]
    table |= {option.name: [run.config.get(option.name) for run in runs] for option in options}
    chosen = [run.config.get("automatic") or {} for run in runs]
    environment = {
        f"{name} (chosen)": [each.get(name) for each in chosen]
        for name in dict.fromkeys(name for each in chosen for name in each)
    }
    for name in _ENVIRONMENT:
        # of the newest attempt: the weights there are were made in it
        environment[name] = [run.attempts[-1]["environment"].get(name) if run.attempts else None for run in runs]
    return [
        ComparedSetting(
            name=name,
            kind="environment" if name in environment else "setting",
            values=values,
            differs=_differ(_in_effect(runs, name, values), name in environment),
        )
        for name, values in (table | environment).items()
        if any(value is not None for value in values)
    ]


def _in_effect(runs: Sequence[_Run], name: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values of a setting by what they do: of model and data, what is in them."""
    if name == "model":
        return [run.row["model_identity"] for run in runs]
    if name == "data":
        return [run.row["data_identity"] for run in runs]
    return [run.in_effect.get(name, value) for run, value in zip(runs, values, strict=True)]


def _beginning(config: JsonObject) -> str | None:
    """Whose weights a run began with, None for fresh ones."""
    origin = origin_of(config)
    return f"{origin.run or origin.folder}:{origin.iteration}" if origin else None


def _differ(values: Sequence[Any], is_environment: bool) -> bool:
    """Whether values differ; what is not known of an environment, before its first attempt, differs from nothing."""
    known = [value for value in values if value is not None or not is_environment]
    return any(value != known[0] for value in known)


def _cautions(runs: Sequence[_Run], by: str) -> list[str]:
    """Why losses of these runs are not to be set against each other as they are, nor their curves at equal times."""

    def differ(name: str) -> bool:
        return len({str(run.config.get(name)) for run in runs}) > 1

    found = []
    if len({run.row["model_identity"] for run in runs}) > 1:
        found.append("the models differ: a token of one need not be a token of the other, and losses are per token")
    if differ("validation_identity"):
        found.append("the validation rows differ: validation losses do not measure the same")
    elif any(run.config.get("val_batches") != -1 for run in runs) and any(map(differ, _OF_VALIDATION)):
        found.append("val_batches, batch_size or seed differ: unless all rows fit, other rows are validated")
    if differ("mask_prompt") or differ("max_seq_length"):
        found.append("mask_prompt or max_seq_length differ: other tokens count towards the losses")
    if by == "time" and len({_beginning(run.config) for run in runs}) > 1:
        found.append("not all begin with the same weights: the time in which those were trained counts for no run")
    return found


# losses -------------------------------------------------------------------------------------------------------------


def _losses(run: _Run) -> RunLosses:
    summary = run.summary
    validations = run.series.get("validation_loss")
    best = summary["best_iteration"]
    return RunLosses(
        name=summary["name"],
        status=summary["status"],
        iteration=summary["iteration"],
        target_iterations=summary["target_iterations"],
        trained_tokens=summary["trained_tokens"],
        seconds=summary["seconds"],
        train_loss=summary["train_loss"],
        fingerprint=run.row["fingerprint"],
        validation_loss=summary["validation_loss"],
        validation_standard_error=run.errors.get(validations["last_iteration"]) if validations else None,
        best_validation_loss=summary["best_validation_loss"],
        best_standard_error=run.errors.get(best) if best is not None else None,
        best_iteration=best,
    )


def _differences(runs: Sequence[_Run]) -> list[LossDifference]:
    """How far each run's final and best validation loss is above the lowest of them, and how well that is known."""
    losses = [_losses(run) for run in runs]
    final = above_lowest([(each.validation_loss, each.validation_standard_error) for each in losses])
    best = above_lowest([(each.best_validation_loss, each.best_standard_error) for each in losses])
    of_both: tuple[tuple[Literal["final", "best"], list[Difference]], ...] = (("final", final), ("best", best))
    return [
        LossDifference(loss=loss, name=each.name, **vars(difference))
        for loss, differences in of_both
        for each, difference in zip(losses, differences, strict=True)
    ]


def _side_by_side(runs: Sequence[_Run], *, whole: bool) -> list[LossesAt]:
    """The train losses of all runs at common places: a report is a mean, and between two lies a straight line."""
    curves = [run.curves["train_loss"] for run in runs]
    places = common_places(curves, _PLACES, whole=whole)
    return [LossesAt(at=place, values=[value_at(curve, place) for curve in curves]) for place in places]


def _validations(runs: Sequence[_Run]) -> list[LossesAt]:
    """The validation losses that were measured at iterations which several runs have in common."""
    measured = [{point["iteration"]: point["value"] for point in run.validations} for run in runs]
    counts = Counter(iteration for each in measured for iteration in each)
    common = spread([iteration for iteration in sorted(counts) if counts[iteration] > 1], _PLACES)
    return [LossesAt(at=iteration, values=[each.get(iteration) for each in measured]) for iteration in common]


def _have_same_losses(runs: Sequence[_Run]) -> bool:
    """Whether every loss of every run is the same to the last bit, at the same iteration."""
    first, *others = [([[value for _, value in run.curves[name]] for name in LOSSES], _iterations(run)) for run in runs]
    return all(other == first for other in others) and any(run.curves["train_loss"] for run in runs)


def _iterations(run: _Run) -> list[tuple[int, int, int] | None]:
    found = [run.series.get(name) for name in LOSSES]
    return [each and (each["first_iteration"], each["last_iteration"], each["count"]) for each in found]


def _thinned(run: _Run) -> RunCurves:
    """The curves for drawing: of a longer one the lowest and the highest point of neighbours, so that spikes stay."""
    return RunCurves(
        name=run.row["name"],
        train_loss=_thin(run.curves["train_loss"]),
        validation_loss=_thin(run.curves["validation_loss"]),
    )


def _thin(points: Curve) -> Curve:
    if len(points) <= _POINTS:
        return points
    kept: Curve = []
    for number in range(_POINTS // 2):
        part = points[number * len(points) // (_POINTS // 2) : (number + 1) * len(points) // (_POINTS // 2)]
        known = [(value, place) for place, value in part if value is not None]
        if known:
            kept += sorted({(place, value) for value, place in (min(known), max(known))})
        else:
            kept.append(part[0])
    return kept


# evaluations, speed, memory -----------------------------------------------------------------------------------------


def _evaluations(runs: Sequence[_Run]) -> list[ComparedEvaluation]:
    """The newest score of each kind on the same data, one row a score with a value for each run that has it."""
    table: dict[tuple[str, str, str, str], list[tuple[float | None, float | None]]] = {}
    for number, run in enumerate(runs):
        for evaluation in run.evaluations:
            for score in evaluation["scores"]:
                key = (evaluation["kind"], evaluation["data"], evaluation["data_sha256"], score["metric"])
                row = table.setdefault(key, [(None, None)] * len(runs))
                row[number] = (score["value"], score["standard_error"])
    return [
        ComparedEvaluation(
            kind=kind,
            data=data,
            data_sha256=digest,
            metric=metric,
            values=[value for value, _ in row],
            standard_errors=[error for _, error in row],
        )
        for (kind, data, digest, metric), row in table.items()
    ]


def _benchmarks(runs: Sequence[_Run]) -> list[ComparedBenchmark]:
    """The newest speeds at each shape of a request on each machine, one row a speed with a value for each run."""
    table: dict[tuple[str, str, int, int, int, int, str], list[tuple[float | None, float | None]]] = {}
    for number, run in enumerate(runs):
        for each in run.benchmarks:
            shape = (each["context_tokens"], each["prompt_tokens"], each["generated_tokens"], each["batch_size"])
            key = (each["host"], each["device"], *shape, each["metric"])
            table.setdefault(key, [(None, None)] * len(runs))[number] = (each["mean"], each["standard_deviation"])
    return [
        ComparedBenchmark(
            host=host,
            device=device,
            context_tokens=context,
            prompt_tokens=prompt,
            generated_tokens=generated,
            batch_size=batch,
            metric=metric,
            values=[value for value, _ in row],
            standard_deviations=[deviation for _, deviation in row],
        )
        # of a shape reading first, as a request does
        for (host, device, context, prompt, generated, batch, metric), row in sorted(
            table.items(), key=lambda each: (each[0][:-1], each[0][-1] != "prompt_tokens_per_second")
        )
    ]


def _speed(run: _Run) -> RunSpeed:
    """The median of the tokens per second that an attempt reported: figures of different attempts are never mixed."""
    rows = []
    for number, attempt in enumerate(run.attempts):
        later = run.attempts[number + 1 :]
        end = min((each["from_iteration"] for each in later), default=None)
        speeds = [
            value
            for iteration, value in run.speeds
            # one of 0 says that every batch was left out
            if value and attempt["from_iteration"] < iteration and (end is None or iteration <= end)
        ]
        if speeds:
            rows.append(AttemptSpeed(attempt=attempt["number"], tokens_per_second=median(speeds), reports=len(speeds)))
    return RunSpeed(name=run.row["name"], seconds=run.summary["seconds"], attempts=rows)


def _memory(run: _Run) -> RunMemory:
    peak, active = (run.series.get(name) for name in ("peak_memory", "active_memory"))
    return RunMemory(
        name=run.row["name"],
        peak_memory=peak["max_value"] if peak else None,
        active_memory=active["max_value"] if active else None,
    )
