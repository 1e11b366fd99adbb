"""What a training changed: the validation loss of base model and tuned model, and answers of both to the same prompts.

The training is over and recorded when this begins, so whatever goes wrong here costs the answers and nothing else.
"""

from __future__ import annotations

import gc
import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mlxops import data, files, registry
from mlxops.adapters import loadable
from mlxops.errors import BadRequest, MlxopsError
from mlxops.jobs import commands
from mlxops.jobs.eval import loading, questions
from mlxops.jobs.eval.questions import Question
from mlxops.jobs.train.session import Begun
from mlxops.projects import blas, machine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[str, int, int], None]

KIND = "answers"
_MAX_TOKENS = 80
_LONGEST_PROMPT = 1024  # in tokens; reading a longer one takes a CPU longer than answering
_CONTINUED = 16  # tokens of a plain text that the model is given


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What a training changed, and what to type next.

    `before` is the validation of the base model, None where these rows were not validated at iteration 0. `notes` say
    why there are no answers, where some were asked for, and what else a person should know of them.
    """

    run: registry.RunSummaryView
    was_finished: bool
    before: registry.LossPoint | None
    after: registry.LossPoint | None
    answers: Sequence[registry.AnswerView]
    notes: Sequence[str]
    commands: Sequence[str]

    def to_json(self) -> registry.JsonObject:
        """The run's summary, and beside it what it changed."""
        return {**self.run, **{name: value for name, value in vars(self).items() if name != "run"}}


def find_out(run: Begun, progress: Progress, *, is_fused: bool = False) -> TrainingOutcome:
    """What a run changed. Answers are made once, when the training is over; later they are those of the registry.

    `is_fused` says that a model is made of it next, so that nobody has to be told how.
    """
    summary = run.summary()
    prepared, notes = run.training.prepared, list[str]()
    wants_answers = prepared.config.samples > 0
    answers = registry.answers_of(run.db, summary["name"], iteration=summary["iteration"]) if wants_answers else []
    if wants_answers and not answers and not run.is_finished:
        answers, notes = ask(run, summary, prepared.samples, prepared.config.samples, progress)
    before, after = losses(run)
    program, name = commands.program(run.training.invocation), shlex.quote(summary["name"])
    return TrainingOutcome(
        run=summary,
        was_finished=run.is_finished,
        before=before,
        after=after,
        answers=answers,
        notes=notes,
        commands=[
            f"{program} chat --run {name}",
            f"{program} test --run {name} --compare-base",
            *([] if is_fused else [f"{program} model.fuse {name}"]),
        ],
    )


def losses(run: Begun) -> tuple[registry.LossPoint | None, registry.LossPoint | None]:
    """The validation of the base model, where it is one of the same rows, and the run's last one."""
    curve = registry.loss_curve(run.db, run.claim.run_id, buckets=1000)
    validated = [row for row in curve if row["validation_loss"] is not None]
    settings = [
        event["detail"] or {} for event in registry.events_of(run.db, run.claim.run_id) if event["kind"] == "settings"
    ]
    is_same_rows = not any("val_batches" in detail for detail in settings)
    first = validated[0] if validated and validated[0]["iteration"] == 0 and is_same_rows else None
    return first, validated[-1] if validated else None


def ask(
    run: Begun, summary: registry.RunSummaryView, chosen: data.HeldOut, count: int, progress: Progress
) -> tuple[list[registry.AnswerView], list[str]]:
    """The answers of base model and tuned model to some of the rows, recorded, and what a person should know of them.

    Nothing that goes wrong is raised, Ctrl-C included: the training before it is not to look failed.
    """
    name = shlex.quote(summary["name"])
    hint = f"`{commands.program(run.training.invocation)} chat --run {name}` asks"
    try:
        found = _ask(run, summary, chosen, count, progress)
    except KeyboardInterrupt:
        return [], [f"no answers: interrupted; {hint}"]
    except MlxopsError as error:
        return [], [f"no answers: {error.message}; {hint}"]
    except Exception as error:
        # not even a bug of ours may cost a person the training that is done
        logging.getLogger(__name__).debug("no answers", exc_info=True)
        return [], [f"no answers: {type(error).__name__}: {error}; {hint}"]
    return found, list(chosen.notes)


def _ask(
    run: Begun, summary: registry.RunSummaryView, chosen: data.HeldOut, count: int, progress: Progress
) -> list[registry.AnswerView]:
    prepared, invocation = run.training.prepared, run.training.invocation
    automatic = registry.run_named(run.db, summary["name"])["config"]["automatic"]
    blas.load(
        threads=automatic.get("blas_threads"),
        core_type=automatic.get("core_type"),
        cache=invocation.cache or machine.user_cache(),
        setting=invocation.blas,
    )
    import mlx.core as mx

    from mlxops.models.generation import generate_batch
    from mlxops.models.loading import load_for_generation

    gc.collect()  # the trained model, which is part of a circle
    mx.clear_cache()
    loaded = load_for_generation(
        prepared.model_folder,
        dtype=automatic.get("dtype"),
        identify=lambda: prepared.model_identity,
        trust_remote_code=prepared.config.trust_remote_code,
    )
    limit = min(_LONGEST_PROMPT, (loaded.context_length or _LONGEST_PROMPT) - 1)
    asked = _questions(chosen.records, loaded.tokenizer, prepared.config.chat_template_config, limit)[:count]
    if not asked:
        raise BadRequest(f"no row asks anything within {limit:,} tokens")
    adapter = loadable.read(run.claim.folder, layers=prepared.model.layers, iteration=summary["iteration"])
    data_sha256, base, made = files.sha256(chosen.file), None, []
    for what, is_tuned in (("base model", False), ("tuned model", True)):
        if is_tuned:
            loaded.slot.put_in(loading.spec_of(adapter))
        start = time.perf_counter()
        answers = generate_batch(
            loaded,
            [each.tokens for each in asked],
            max_tokens=_MAX_TOKENS,
            progress=partial(progress, f"answer tokens, {what} (Ctrl-C skips)"),
        )
        made.append((is_tuned, answers, time.perf_counter() - start))
    for is_tuned, answers, seconds in made:  # all of them or none
        base = registry.record_evaluation(
            run.db,
            run_id=run.claim.run_id if is_tuned else None,
            iteration=summary["iteration"] if is_tuned else None,
            base_evaluation_id=base,
            model=summary["model"],
            adapter_path=summary["adapter_path"] if is_tuned else None,
            data=run.training.project.relative(chosen.file),
            data_sha256=data_sha256,
            kind=KIND,
            config={"max_tokens": _MAX_TOKENS, "temperature": 0},
            seconds=seconds,
            answers=[
                registry.Answer(
                    row=row,
                    prompt=question.asked,
                    expected=question.expected,
                    answer=questions.without_thoughts(question.text, answer.text),
                    scores={"origin": question.origin},
                )
                for row, (question, answer) in enumerate(zip(asked, answers, strict=True), start=1)
            ],
        )
    return registry.answers_of(run.db, summary["name"], iteration=summary["iteration"])


def _questions(
    records: Sequence[data.Record], tokenizer: PreTrainedTokenizerBase, template_config: Mapping[str, Any], limit: int
) -> list[Question]:
    """What the rows ask, in their order; a plain text asks to be continued."""
    found = []
    for record in records:
        if record.text is not None:
            found += _continued(record.origin, record.text, tokenizer)
        else:
            read = questions.read([record], tokenizer, template_config=template_config, context_length=limit)
            found += read.asked
    return found


def _continued(origin: str, text: str, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """The beginning of a text as what is asked, the rest as the answer; nothing of a text too short for that."""
    tokens = tokenizer.encode(text)[:_CONTINUED]
    start = str(tokenizer.decode(tokens, skip_special_tokens=True))
    if not start.strip() or not text.startswith(start) or not text[len(start) :].strip():
        return []
    return [Question(origin=origin, asked=start, expected=text[len(start) :], text=start, tokens=tokens)]
