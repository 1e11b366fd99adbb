"""Testing a model: the rows and the model that a person names, measured, compared with the base, and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import data, files, registry
from mlxops.adapters import adapter_config
from mlxops.adapters.adapter_config import DescribedRun
from mlxops.config import TestConfig
from mlxops.errors import BadRequest
from mlxops.jobs.eval import every_checkpoint, lm_eval_tasks, loading, memory, questions, results, samples
from mlxops.jobs.eval.lm_eval_tasks import AskedTasks, LoadedTasks
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.eval.questions import Question, Questions
from mlxops.jobs.eval.results import MeasuredModel, TestResults
from mlxops.jobs.train import fit
from mlxops.likeness import nearest
from mlxops.models.folders import check_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer, template_arguments
from mlxops.options import given
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.evaluation.answers import ScoredAnswer
    from mlxops.evaluation.measures import Measure
    from mlxops.evaluation.perplexity import RowLoss
    from mlxops.evaluation.plugins import Plugin
    from mlxops.models.generation import LoadedModel

Progress = Callable[[str, int, int], None]

_USUAL_LENGTH = 2048
METRICS = ("perplexity", "generation_quality")
_USUAL_QUESTIONS = 100


@dataclass(frozen=True, kw_only=True)
class TestedRows:
    """The rows of a test, as tokens and as questions, as far as each is measured."""

    file: Path
    records: tuple[data.Record, ...]
    tokenized: data.Tokenized | None
    questions: tuple[Question, ...]
    plugins: tuple[Plugin, ...]
    mask_prompt: bool
    max_seq_length: int


@dataclass(frozen=True, kw_only=True)
class TestPlan:
    """A test that is checked: the model, what it is tested on, and what a person should know before it begins."""

    invocation: Invocation
    config: TestConfig
    chosen: ChosenModel
    on: TestedRows | LoadedTasks
    template_config: Mapping[str, Any]
    notes: tuple[str, ...]
    checkpoints: tuple[ChosenModel, ...] = ()


def plan(invocation: Invocation, config: TestConfig, progress: Progress) -> TestPlan:
    """Check all that can be checked before a model is loaded: metrics, model, adapter, data, the place of the results.

    Raises `BadRequest`, `NotFound` and `InvalidData` for what is not there or does not fit.
    """
    project = invocation.project
    lm_eval_tasks.check_options(config)
    plugins = () if config.tasks else _plugins(config)
    _check_output(config)
    _check_model(project, config)
    checkpoints, damaged = every_checkpoint.choose(invocation, config) if config.all_checkpoints else ((), ())
    chosen = (
        checkpoints[-1]
        if checkpoints
        else loading.choose(
            invocation,
            model=config.model or None,
            adapter_path=config.adapter_path,
            run=config.run,
            trust_remote_code=config.trust_remote_code,
        )
    )
    if config.compare_base and chosen.adapter is None:
        raise BadRequest(
            "--compare-base compares with an adapter, and none is given",
            hint="name one with `--run` or `--adapter-path`",
        )
    template_config = chosen.adapter.template_config if chosen.adapter else {}
    on: TestedRows | LoadedTasks
    notes: list[str] = []
    if config.tasks:
        on = lm_eval_tasks.load(project, config)
    else:
        on, notes = _rows_of(project, config, chosen, template_config, plugins, progress)
    with registry.open_registry(project.registry_path):
        pass  # what cannot be recorded is known before the work
    return TestPlan(
        invocation=invocation,
        config=config,
        chosen=chosen,
        on=on,
        template_config=template_config,
        checkpoints=checkpoints,
        notes=(*memory.notes(invocation, chosen), *damaged, *notes),
    )


def _rows_of(
    project: Project,
    config: TestConfig,
    chosen: ChosenModel,
    template_config: Mapping[str, Any],
    plugins: Sequence[Plugin],
    progress: Progress,
) -> tuple[TestedRows, list[str]]:
    """The rows of a test, checked against the model, and notes on them."""
    trained = _training_of(chosen)
    held_out = _read(project, config, trained)
    records = samples.draw(held_out.records, config.num_samples, config.seed)
    info = check_model(chosen.folder, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(chosen.folder, trust_remote_code=config.trust_remote_code)
    settings = trained["config"] if trained else {}
    mask_prompt = config.mask_prompt if "mask_prompt" in given(config) else settings.get("mask_prompt", True)
    max_seq_length = config.max_seq_length or settings.get("max_seq_length", _USUAL_LENGTH)
    tokenized = None
    if "perplexity" in config.metrics:
        tokenized = data.tokenize(
            records,
            tokenizer,
            max_seq_length=max_seq_length,
            mask_prompt=mask_prompt,
            use="test",
            stops=eos_ids(chosen.folder, tokenizer),
            template_arguments={**template_arguments(tokenizer), **template_config},
            progress=lambda done, total: progress("tokens", done, total),
        )
        if not tokenized.rows:
            raise BadRequest(
                f"no row has anything to measure within {max_seq_length:,} tokens",
                hint=f"`--max-seq-length {tokenized.longest}` takes all of every row",
            )
        fit.check_rows(tokenized.rows, tokenizer, info, chosen.folder.name)
    asked = None
    if plugins or "generation_quality" in config.metrics:
        asked = questions.read(
            samples.draw(records, config.num_samples or _USUAL_QUESTIONS, config.seed),
            tokenizer,
            template_config=template_config,
            context_length=info.context_length,
        )
        if not asked.asked and (tokenized is None or "metrics" in given(config)):
            raise BadRequest(
                "no row has a question and an answer to compare with", hint="`--metrics perplexity` takes any rows"
            )
    rows = TestedRows(
        file=held_out.file,
        records=records,
        tokenized=tokenized,
        questions=asked.asked if asked else (),
        plugins=tuple(plugins),
        mask_prompt=mask_prompt,
        max_seq_length=max_seq_length,
    )
    return rows, [
        *held_out.notes,
        *_notes_on_rows(held_out, records, tokenized, max_seq_length),
        *_notes_on_questions(asked, records, config),
    ]


def run(plan: TestPlan, progress: Progress, measured: list[TestResults]) -> None:
    """Measure and record, into `measured` as it is known: whoever shows it has it also where the rest fails.

    With `--all-checkpoints` there is one for each checkpoint, the oldest first. Raises `Failed` where results cannot
    be written.
    """
    project, config = plan.invocation.project, plan.config
    for chosen, found in _measure(plan, progress):
        # the base is measured once, and recorded once
        measured.append(replace(found, base=measured[0].base) if measured else found)
        measured[-1] = results.record(project, chosen, measured[-1])
    if config.output is not None:
        results.write(project, config.output, results.all_to_json(measured, is_list=config.all_checkpoints))


def _measure(plan: TestPlan, progress: Progress) -> Iterator[tuple[ChosenModel, TestResults]]:
    """Load the model once and measure it; with `--compare-base` first without the adapter."""
    loaded = loading.load(plan.invocation, replace(plan.chosen, adapter=None))
    if isinstance(plan.on, TestedRows) and plan.on.tokenized is not None:
        _check_scores(loaded, plan.on.tokenized, plan.chosen.folder.name)
    base = None
    if plan.config.compare_base:
        base = _measure_one(loaded, plan, "base model", progress)[0]
    for chosen in plan.checkpoints or (plan.chosen,):
        label = chosen.adapter.label if chosen.adapter else None
        if chosen.adapter is not None:
            loaded.slot.put_in(loading.spec_of(chosen.adapter.adapter))
        what = label if plan.checkpoints and label else "tuned model" if label else "model"
        yield chosen, _results(plan, chosen, base, *_measure_one(loaded, plan, what, progress, adapter=label))


def _results(
    plan: TestPlan, chosen: ChosenModel, base: MeasuredModel | None, tuned: MeasuredModel, asked: AskedTasks | None
) -> TestResults:
    from mlxops.evaluation.comparison import compare

    config, project, on = plan.config, plan.invocation.project, plan.on
    of_base = {measure.metric: measure for measure in base.measures} if base else {}
    settings: registry.JsonObject
    if isinstance(on, TestedRows):
        kind, name, digest, rows = results.KIND, project.relative(on.file), files.sha256(on.file), len(on.records)
        settings = {
            "metrics": list(config.metrics),
            "num_samples": config.num_samples,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
            "mask_prompt": on.mask_prompt,
            "max_seq_length": on.max_seq_length,
        }
    else:
        assert asked is not None
        kind, name, digest, rows = lm_eval_tasks.KIND, ",".join(on.names), asked.data_sha256, asked.rows
        settings = lm_eval_tasks.settings(on, config)
    return TestResults(
        kind=kind,
        model=project.relative(chosen.folder),
        data=name,
        data_sha256=digest,
        rows=rows,
        config={**settings, "chat_template_config": dict(plan.template_config)},
        iteration=chosen.adapter.iteration if chosen.adapter else None,
        tuned=tuned,
        base=base,
        compared=tuple(
            compare(of_base[now.metric], now, seed=config.seed) for now in tuned.measures if now.metric in of_base
        ),
        notes=plan.notes,
    )


def _measure_one(
    loaded: LoadedModel, plan: TestPlan, what: str, progress: Progress, adapter: str | None = None
) -> tuple[MeasuredModel, AskedTasks | None]:
    if isinstance(plan.on, TestedRows):
        return _measure_rows(loaded, plan.on, plan.config, what, progress, adapter), None
    asked = lm_eval_tasks.ask(
        loaded,
        plan.on,
        plan.config,
        adapter=adapter,
        template_config=plan.template_config,
        progress=lambda done, total: progress(f"requests, {what}", done, total),
    )
    return asked.measured, asked


def _measure_rows(
    loaded: LoadedModel, on: TestedRows, config: TestConfig, what: str, progress: Progress, adapter: str | None
) -> MeasuredModel:
    from mlxops.evaluation import answers, measures, perplexity, plugins
    from mlxops.training.improvement import ratio

    start = time.perf_counter()
    found: list[Measure] = []
    worst: Sequence[RowLoss] = ()
    if on.tokenized is not None:
        losses, byte_counts = samples.losses(
            loaded,
            on.tokenized.rows,
            order=[record.origin for record in on.records],
            batch_size=config.batch_size,
            progress=lambda done, total: progress(f"perplexity, {what}", done, total),
        )
        found += perplexity.measures(losses, byte_counts)
        worst = perplexity.worst(losses)
    scored: Sequence[ScoredAnswer] = ()
    if on.questions:
        scored = questions.answer(
            loaded,
            on.questions,
            max_tokens=config.max_tokens,
            plugins=on.plugins,
            progress=lambda done, total: progress(f"answer tokens, {what}", done, total),
        )
        own = answers.BETTER if "generation_quality" in config.metrics else {}
        found += answers.measures(scored, {**own, **plugins.better_of(on.plugins)})
    return MeasuredModel(
        adapter=adapter,
        scores=tuple(measures.score(each, ratio) for each in found),
        measures=tuple(found),
        worst=tuple(worst),
        answers=tuple(scored),
        seconds=time.perf_counter() - start,
    )


def _plugins(config: TestConfig) -> list[Plugin]:
    """The metrics of other packages that are asked for. Raises `BadRequest` for a metric that is not there."""
    wanted = [name for name in dict.fromkeys(config.metrics) if name not in METRICS]
    if config.metrics and not wanted:
        return []
    from mlxops.evaluation import plugins

    there = [*METRICS, *(name for name in plugins.names() if name not in METRICS)]
    unknown = [name for name in wanted if name not in there]
    if unknown or not config.metrics:
        raise BadRequest(
            f"--metrics takes {', '.join(there)}, not {', '.join(map(repr, unknown)) or 'nothing'}",
            hint=f"`--metrics {(unknown and nearest(unknown[0], there)) or ','.join(METRICS)}` is one that is there",
        )
    return plugins.load(wanted)


def _check_model(project: Project, config: TestConfig) -> None:
    """A run knows its model, so that the one word after it may be meant as the data."""
    path = project.resolve(config.model) if config.model else None
    if path is None or config.data is not None or (path / "config.json").is_file():
        return
    if path.is_file() or any((path / f"{use}.jsonl").is_file() for use in ("train", "valid", "test")):
        raise BadRequest(f"{config.model!r} holds rows and is no model", hint=f"`--data {config.model}` tests on them")


def _check_output(config: TestConfig) -> None:
    # what is there is replaced, so a slip like `--output runs.db` must not get that far
    if config.output is not None and not config.output.lower().endswith(".json"):
        raise BadRequest(
            f"--output takes a file that ends in .json, not {config.output!r}", hint="`--output results.json`"
        )


def _check_scores(loaded: LoadedModel, tokenized: data.Tokenized, name: str) -> None:
    from mlxops.models.loading import try_out

    fit.check_scores(tokenized.rows, try_out(loaded.model, name), name)


def _training_of(chosen: ChosenModel) -> DescribedRun | None:
    """What the adapter's folder says of the run that made it; None where it is none of ours."""
    if chosen.adapter is None:
        return None
    return adapter_config.describes_itself(chosen.adapter.adapter.file.parent)


def _read(project: Project, config: TestConfig, trained: DescribedRun | None) -> data.HeldOut:
    """The rows to test on. Of the file that a run was trained on, only what it kept back."""
    trained_on = project.from_root(trained["data"]) if trained else None
    path = project.resolve(config.data) if config.data is not None else trained_on or project.resolve("data")
    is_trained_on = trained_on is not None and path.is_file() and files.is_same(path, trained_on)
    return data.read_held_out(path, root=project.root, only_kept_back=is_trained_on)


def _notes_on_rows(
    held_out: data.HeldOut, records: Sequence[data.Record], tokenized: data.Tokenized | None, limit: int
) -> list[str]:
    notes = []
    if len(records) < len(held_out.records):
        notes.append(f"{len(records):,} of {len(held_out.records):,} rows drawn")
    if tokenized is None:
        return notes
    notes += tokenized.notes
    if tokenized.truncated:
        notes.append(
            f"{_rows(tokenized.truncated)} longer than {limit:,} tokens cut "
            f"(the longest has {tokenized.longest:,}; `--max-seq-length`)"
        )
    if tokenized.left_out:
        notes.append(
            f"{_rows(len(tokenized.left_out))} with nothing to measure left out, first {tokenized.left_out[0]}"
        )
    return notes


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _notes_on_questions(asked: Questions | None, records: Sequence[data.Record], config: TestConfig) -> list[str]:
    if asked is None:
        return []
    notes = []
    if config.num_samples is None and len(records) > _USUAL_QUESTIONS:
        notes.append(f"{_USUAL_QUESTIONS:,} of {len(records):,} rows drawn to answer (`--num-samples`)")
    if asked.without:
        notes.append(f"{_rows(asked.without)} without a question and an answer in words: not asked")
    if asked.too_long:
        notes.append(f"{_rows(asked.too_long)} with a prompt that fills the model's context: not asked")
    return notes
