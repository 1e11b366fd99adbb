"""Everything about a training that can be known before MLX is loaded and before anything is written."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mlxops import data, registry, texts, words
from mlxops.config import LoraConfig
from mlxops.config.train import USUAL_LAYERS, layers_trained
from mlxops.data import checking
from mlxops.errors import BadRequest, InvalidData, NotFound
from mlxops.jobs.eval.questions import last_answer
from mlxops.jobs.train import adopt, fit
from mlxops.models.folders import ModelInfo, check_model, find_model
from mlxops.models.identity import model_identity as identify_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer, template_arguments
from mlxops.projects.project import Project
from mlxops.registry import JsonObject
from mlxops.training import batches
from mlxops.training.fingerprint import deciding_settings, fingerprint
from mlxops.training.origin import Origin

Progress = Callable[[str, int, int], None]

_SPARE = 8  # rows kept for each that is to be answered


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training that could start: checked settings, tokenized rows, identities, and what a person should know.

    `samples` are rows to ask once it is over, of validation, else of training. `origin` is where it begins, None for
    fresh weights; `to_adopt` the file of another program that it begins with, None where that was taken over before.
    """

    config: LoraConfig
    model_folder: Path
    model: ModelInfo
    data_path: Path
    train: data.Tokenized
    validation: data.Tokenized | None
    plan: batches.Plan
    target: int
    model_identity: str
    data_identity: str
    content_identity: str
    validation_identity: str | None
    settings: JsonObject
    fingerprint: str
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    samples: data.HeldOut
    origin: Origin | None = None
    to_adopt: Path | None = None

    @property
    def tokens_an_epoch(self) -> int:
        """The trained tokens of one pass over the data."""
        return self.train.trained_tokens


def prepare(project: Project, config: LoraConfig, progress: Progress) -> Prepared:
    """Check settings, data and model, in the order in which a person can mend them. Writes nothing but caches."""
    adopt.check_asked(config)
    _check_place(project, config)
    data_path = project.resolve(config.data)
    splits = data.read(data_path, root=project.root, needed=("train", "valid") if config.val_batches else ("train",))
    folder = find_model(config.model, resolve=project.resolve, models_folder=project.models_folder)
    info = check_model(folder, trust_remote_code=config.trust_remote_code)
    adopted = adopt.adopt(project, config, info, folder) if config.adopt is not None else None
    config = adopted.config if adopted else adopt.inherit(project, config)
    is_fewer = config.num_layers is None and info.layers < USUAL_LAYERS
    config = replace(config, num_layers=layers_trained(config, info.layers))
    _check_fit(config, info, folder)

    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    tokenize = Tokenize(tokenizer, eos_ids(folder, tokenizer), config, progress)
    train = tokenize(splits.train, "tokens", "training")
    _check_lengths(train, config)
    validation, validation_notes = _validation(splits, tokenize)
    _check_validation(validation, splits, config)
    fit.check_rows([*train.rows, *(validation.rows if validation else ())], tokenizer, info, folder.name)
    plan = batches.plan(train.rows, batch_size=config.batch_size, seed=config.seed)
    target = config.iters if config.epochs is None else config.epochs * len(plan)

    cache = project.root / ".mlxops" / "model_hashes.json"
    model_identity = identify_model(folder, cache, lambda done, total: progress("model files", done, total))
    data_identity = data.identity(train.rows)
    settings = deciding_settings(config, model=model_identity, data=data_identity, target=target)
    prepared = Prepared(
        config=config,
        model_folder=folder,
        model=info,
        data_path=data_path,
        train=train,
        validation=validation,
        plan=plan,
        target=target,
        model_identity=model_identity,
        data_identity=data_identity,
        content_identity=data.content_identity(splits.train),
        validation_identity=data.identity(validation.rows) if validation else None,
        settings=settings,
        fingerprint=fingerprint(settings),
        lines=(
            *_first_lines(config, train, validation, plan, target),
            *([f"training all {info.layers} layers of the model"] if is_fewer else []),
        ),
        notes=(
            *splits.notes,
            *_warnings(splits, project.relative(data_path)),
            *train.notes,
            *_cuts(train, config.max_seq_length, "row"),
            *validation_notes,
            *_notes_on_model(config, train, folder, tokenizer, info),
        ),
        samples=_samples(splits, config.samples),
    )
    if adopted is None:
        return prepared
    return replace(begin_at(prepared, adopted.origin, adopted.notes), to_adopt=adopted.file)


def begin_at(prepared: Prepared, origin: Origin, lines: tuple[str, ...] = ()) -> Prepared:
    """The same training, begun with another's weights."""
    settings = {**prepared.settings, **origin.settings}
    return replace(
        prepared,
        settings=settings,
        fingerprint=fingerprint(settings),
        lines=(origin.note, *lines, *prepared.lines),
        origin=origin,
    )


@dataclass(frozen=True)
class Tokenize:
    """Records into token rows by the settings of a training: there is no other way from data to what is trained."""

    tokenizer: Any
    stops: tuple[int, ...]
    config: LoraConfig
    progress: Progress

    def __call__(self, records: Any, what: str, use: data.Use) -> data.Tokenized:
        return data.tokenize(
            records,
            self.tokenizer,
            max_seq_length=self.config.max_seq_length,
            mask_prompt=self.config.mask_prompt,
            use=use,
            stops=self.stops,
            template_arguments=self.template_arguments,
            progress=lambda done, total: self.progress(what, done, total),
        )

    @property
    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is told besides the messages."""
        return {**template_arguments(self.tokenizer), **self.config.chat_template_config}

    def preparation(self, *, with_words: bool = False) -> data.Preparation:
        """The preparation that a call runs, for rows of full length and part by part."""
        return data.Preparation(
            self.tokenizer,
            mask_prompt=self.config.mask_prompt,
            stops=self.stops,
            template_arguments=self.template_arguments,
            with_words=with_words,
        )


def _check_place(project: Project, config: LoraConfig) -> None:
    if config.name is not None and not _is_stored(project, config.name):
        texts.check_name(config.name, texts.RUN)
    if config.note is not None:
        texts.check_text(config.note, "the note")
    for tag in config.tag:
        texts.check_name(tag, texts.TAG)
    if config.adapter_path is not None and project.resolve(config.adapter_path).is_file():
        raise BadRequest(
            f"--adapter-path {config.adapter_path!r} is a file", hint="name a folder; it is made if it is not there"
        )
    folder = project.adapters_folder if config.adapter_path is None else project.resolve(config.adapter_path)
    if file := next((each for each in (folder, *folder.parents) if each.is_file()), None):
        raise BadRequest(
            f"{project.relative(file)!r} is a file, so the run's folder cannot be made there",
            hint="move it away, or name another `--adapter-path`",
        )


def _is_stored(project: Project, name: str) -> bool:
    """Whether a run has this name, which names could be given when it was made."""
    if texts.why_unfit(name, texts.RUN) is None or not texts.is_utf8(name):
        return False
    try:
        with registry.open_read_only(project.registry_path) as db:
            return registry.id_of(db, name) is not None
    except NotFound:
        return False


def _check_fit(config: LoraConfig, info: ModelInfo, folder: Path) -> None:
    if (layers := layers_trained(config, info.layers)) > info.layers:
        raise BadRequest(
            f"--num-layers {layers} is more than the {info.layers} layers of {folder.name}",
            hint=f"`--num-layers {info.layers}` or -1 trains all of them",
        )
    if config.fine_tune_type == "full" and info.quantization:
        raise BadRequest(
            f"{folder.name} is quantized, and quantized weights cannot be trained in full",
            hint="`--fine-tune-type lora`, or no `--full`, trains an adapter on it",
        )


def _check_lengths(train: data.Tokenized, config: LoraConfig) -> None:
    if train.truncated == len(train.rows) + len(train.left_out):
        raise InvalidData(
            f"every row is longer than --max-seq-length {config.max_seq_length:,}; "
            f"the longest has {train.longest:,} tokens",
            hint=f"`--max-seq-length {train.longest}` takes all of every row; or split the rows",
        )


def _validation(splits: data.Splits, tokenize: Tokenize) -> tuple[data.Tokenized | None, list[str]]:
    """The validation rows, None where there are none to compare, and what a person should know of them.

    A set of rows that are all cut away costs the validation and not the training.
    """
    limit = tokenize.config.max_seq_length
    if not splits.valid or not tokenize.config.val_batches:
        return None, []
    found = tokenize(splits.valid, "validation tokens", "validation")
    if found.rows:
        return found, _cuts(found, limit, "validation row")
    rows = (
        "the only validation row has"
        if len(found.left_out) == 1
        else f"all {len(found.left_out):,} validation rows have"
    )
    why = f"{rows} nothing left to compare within {limit:,} tokens"
    return None, [f"no validation: {why}; --max-seq-length {found.longest} takes all of every row"]


def _check_validation(validation: data.Tokenized | None, splits: data.Splits, config: LoraConfig) -> None:
    if config.early_stopping is not None and validation is None:
        why = "there are no rows for one"
        if config.val_batches == 0:
            why = "--val-batches 0 makes none"
        elif splits.valid:
            why = f"no validation row has anything to compare within {config.max_seq_length:,} tokens"
        raise BadRequest(f"--early-stopping goes by the validation loss, and {why}", hint="leave one of the two out")


def _samples(splits: data.Splits, count: int) -> data.HeldOut:
    """The first rows that ask something or can be continued, several times as many as are wanted: some are too long."""
    asking = (each for each in splits.valid or splits.train if each.text or last_answer(each) is not None)
    return data.HeldOut(
        records=tuple(islice(asking, _SPARE * count)),
        file=splits.valid_file,
        notes=() if splits.valid else ("the prompts are training rows: there are no validation rows",),
    )


def _first_lines(
    config: LoraConfig, train: data.Tokenized, validation: data.Tokenized | None, plan: batches.Plan, target: int
) -> tuple[str, ...]:
    share = f"{100 * train.trained_tokens / train.total_tokens:.0f} % of {train.total_tokens:,} tokens"
    # the first token of a row is never trained, masked or not
    if config.mask_prompt and train.trained_tokens < train.total_tokens - len(train.rows):
        trained = f"training on the assistant's words: {share} (`--no-mask-prompt` for all)"
    else:
        trained = f"training on all words: {share}"
    passes = f"{target / len(plan):.3g}"
    epochs = f"{passes} {'epoch' if passes == '1' else 'epochs'} of {words.plural(len(plan), 'batch')}"
    rows = f"{words.plural(len(train.rows), 'row')} to train, {len(validation.rows) if validation else 0:,} to validate"
    return (trained, f"{rows}; {words.plural(target, 'iteration')} = {epochs}")


def _notes_on_model(
    config: LoraConfig, train: data.Tokenized, folder: Path, tokenizer: Any, info: ModelInfo
) -> list[str]:
    notes = fit.note_on_own_code(folder) if config.trust_remote_code else []
    if config.mask_prompt:
        ends = eos_ids(folder, tokenizer)
        notes += fit.notes_on_ends(train.rows, ends, tokenizer, info, max_seq_length=config.max_seq_length)
    return notes


def _warnings(splits: data.Splits, path: str) -> list[str]:
    """One line where rows can be read and may spoil the training all the same."""
    found = [finding for record in (*splits.train, *splits.valid) for finding in checking.of_row(record)]
    if not found:
        return []
    first = f"first {found[0].origin}: {found[0].message}"
    return [f"{words.plural(len(found), 'warning')} in the data, {first} (`inv data.check {shlex.quote(path)}`)"]


def _cuts(tokenized: data.Tokenized, limit: int, row: str) -> list[str]:
    """Notes on what `--max-seq-length` cut of rows of one use; `row` is the word for one of them."""
    notes = []
    if count := tokenized.truncated:
        longer = (
            f"1 {row} is longer than {limit:,} tokens and was"
            if count == 1
            else (f"{count:,} {row}s are longer than {limit:,} tokens and were")
        )
        notes.append(f"{longer} cut (the longest has {tokenized.longest:,}; --max-seq-length)")
    if count := len(tokenized.left_out):
        shown = ", ".join(tokenized.left_out[:3]) + (", …" if count > 3 else "")
        left = f"1 {row} has nothing" if count == 1 else f"{count:,} {row}s have nothing"
        notes.append(
            f"{left} left to train after the cut: {shown}" if row == "row" else f"{left} left to compare: {shown}"
        )
    return notes
