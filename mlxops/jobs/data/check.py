"""Data before a training: everything that is wrong with it at once, and how large the training would be."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

from mlxops import data, files, registry
from mlxops.config import CheckDataConfig, LoraConfig
from mlxops.data import checking, file_rows, reading
from mlxops.data.checking import Finding
from mlxops.errors import BadRequest, MlxopsError, Refused
from mlxops.jobs.train import fit
from mlxops.jobs.train.prepare import Progress, Tokenize
from mlxops.models.folders import ModelInfo, check_model, find_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training.batches import PAD_TO

_AT_ONCE = 256
_KEPT = 1000  # findings of one kind that are named; the others are counted
_REMOVED = ("exact duplicates", "the same row in two files")


@dataclass(frozen=True, kw_only=True)
class TokenFigures:
    """The training rows in tokens, and one epoch of them; lengths of rows are counted by their upper bounds."""

    rows: int
    total_tokens: int
    trained_tokens: int
    longest: int
    lengths: Mapping[int, int]
    batches_per_epoch: int
    padding_share: float
    seconds_per_epoch: float | None


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """What was found: `counts` by kind, `findings` up to a thousand of each kind, and the size of a training."""

    data: str
    model: str | None
    rows: Mapping[str, int]
    turns: Mapping[str, int]
    characters: Mapping[str, int]
    errors: int
    warnings: int
    counts: Mapping[str, int]
    findings: Sequence[Finding]
    notes: Sequence[str]
    tokens: TokenFigures | None
    repaired: str | None
    removed: Mapping[str, int]
    exit_code: int


@dataclass
class _Found:
    """What is found so far."""

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    removed: dict[str, str] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    trained: int = 0
    cut: int = 0
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if there are not too many of its kind."""
        self.levels[finding.level] += 1
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= _KEPT:
            self.findings.append(finding)
        if finding.level == "error" or finding.kind in _REMOVED:
            self.removed.setdefault(finding.origin, finding.kind)

    def add_problem(self, kind: str, problem: str) -> None:
        """Count a problem that is spelled `file:line: reason`."""
        origin, _, reason = problem.partition(": ")
        self.add(Finding(level="error", kind=kind, origin=origin, message=reason))


@dataclass(frozen=True)
class _Model:
    """What tokens are checked with."""

    folder: Path
    info: ModelInfo
    tokenize: Tokenize


def check(invocation: Invocation, config: CheckDataConfig, progress: Progress) -> CheckedData:
    """Check all files of a data set. Raises `NotFound` where there is none, `Refused` where `--fix` would overwrite."""
    project = invocation.project
    path = project.resolve(config.path)
    there = reading.files_of(path, root=project.root)
    target = _target(project, config.fix)
    model = _model(project, config, progress)
    found, repetitions = _Found(), checking.Repetitions(near=config.near)
    for use, file, shown in there:
        problems = file_rows.Findings()
        records = _with_progress(file_rows.records_of(file, shown, problems), file, f"checking {shown}", progress)
        while part := list(islice(records, _AT_ONCE)):
            for record in part:
                _check_row(record, shown, found, repetitions)
            if model:
                _check_tokens(part, use, model, config, found)
        for problem in problems.problems:
            found.add_problem("unusable rows", problem)
        for origin, key in problems.twice:
            message = f"the key {key!r} stands there twice: the last value counts"
            found.add(Finding(level="warning", kind="keys twice", origin=origin, message=message))
        if not found.rows[shown] and not problems.problems:
            level: checking.Level = "error" if use == "train" else "warning"
            found.add(Finding(level=level, kind="empty files", origin=shown, message="the file has no rows"))
    if model and (why := _refused(config, found)):
        found.add(Finding(level="error", kind="nothing to train", origin=there[0][2], message=why))
    if config.near and repetitions.compared >= checking.NEAR_ROWS:
        found.notes[f"like rows were looked for among the first {checking.NEAR_ROWS:,} rows"] = None
    removed = _repair(there, target, path.is_dir(), found.removed) if target else {}
    return CheckedData(
        data=project.relative(path),
        model=project.relative(model.folder) if model else None,
        rows=found.rows,
        turns=found.turns,
        characters=found.characters,
        errors=found.levels["error"],
        warnings=found.levels["warning"],
        counts=found.counts,
        findings=found.findings,
        notes=list(found.notes),
        tokens=_figures(project, model, config, found) if model else None,
        repaired=project.relative(target) if target else None,
        removed=removed,
        exit_code=2 if found.levels["error"] else 1 if config.strict and found.levels["warning"] else 0,
    )


def _with_progress(records: Iterator[data.Record], file: Path, what: str, progress: Progress) -> Iterator[data.Record]:
    try:
        with file.open("rb") as stream:
            total = sum(piece.count(b"\n") for piece in iter(lambda: stream.read(1 << 20), b""))
    except OSError:  # for whoever reads the rows to say
        total = 0
    number = 0
    for number, record in enumerate(records, 1):
        if number % _AT_ONCE == 0:
            progress(what, number, max(number, total))
        yield record
    progress(what, number, number)


def _refused(config: CheckDataConfig, found: _Found) -> str | None:
    """Why training refuses the rows as they are together."""
    if not found.lengths:
        return None
    if not found.trained:
        return f"within {config.max_seq_length:,} tokens no row has a word to train on"
    if found.cut == len(found.lengths):
        return f"every row is longer than {config.max_seq_length:,} tokens"
    return None


def _model(project: Project, config: CheckDataConfig, progress: Progress) -> _Model | None:
    if config.model is None:
        return None
    folder = find_model(config.model, resolve=project.resolve, models_folder=project.models_folder)
    info = check_model(folder, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    settings = LoraConfig(model=config.model, data=config.path, max_seq_length=config.max_seq_length)
    return _Model(folder, info, Tokenize(tokenizer, eos_ids(folder, tokenizer), settings, progress))


def _check_row(record: data.Record, shown: str, found: _Found, repetitions: checking.Repetitions) -> None:
    found.rows[shown] += 1
    if record.text is not None:
        found.turns["text"] += 1
        found.characters["text"] += len(record.text)
    for message in record.messages:
        found.turns[message["role"]] += 1
        found.characters[message["role"]] += len(message["content"])
    for finding in checking.of_row(record):
        found.add(finding)
    if repeated := repetitions.of_row(record):
        found.add(repeated)


def _check_tokens(
    records: list[data.Record], use: reading.Use, model: _Model, config: CheckDataConfig, found: _Found
) -> None:
    tokenize, limit = model.tokenize, config.max_seq_length
    rows, problems, notes = tokenize.whole(records)
    for problem in problems:
        found.add_problem("rows the chat template refuses", problem)
    if notes and len(found.notes) < 20:
        found.notes.update(dict.fromkeys(f"{records[0].origin} and after: {note}" for note in notes[:1]))
    for row in rows:
        length, kept = row.length, min(row.length, limit)
        trained = sum(max(min(stop, kept) - max(start, 1), 0) for start, stop in row.spans)
        if use == "train":
            found.lengths.append(kept)
            found.trained += trained
            found.cut += length > limit
        try:
            fit.check_rows([row], tokenize.tokenizer, model.info, model.folder.name)
        except MlxopsError as error:
            found.add(Finding(level="error", kind="tokens the model lacks", origin=row.origin, message=error.message))
        if not trained:
            message = f"nothing of its {length:,} tokens is trained within {limit:,}: training leaves it out"
            found.add(Finding(level="warning", kind="nothing to train", origin=row.origin, message=message))
        elif length > limit:
            message = f"{length:,} tokens, of which {length - limit:,} would be cut"
            if row.spans and row.spans[-1][1] > limit:
                message += ": an answer is cut off"
            found.add(Finding(level="warning", kind="rows over the limit", origin=row.origin, message=message))
        stops = set(tokenize.stops)
        if row.spans != ((0, length),) and any(end not in stops for end in fit.ends_of_turns(row, limit)[-1:]):
            message = "no token at which generation stops is trained at its end: such a model never stops"
            found.add(Finding(level="warning", kind="ends of turns", origin=row.origin, message=message))


def _figures(project: Project, model: _Model | None, config: CheckDataConfig, found: _Found) -> TokenFigures | None:
    lengths = sorted(found.lengths)
    positions = 0
    for start in range(0, len(lengths), config.batch_size):
        batch = lengths[start : start + config.batch_size]
        positions += len(batch) * (1 + PAD_TO * -(-(batch[-1] - 1) // PAD_TO))
    histogram: Counter[int] = Counter()
    for length in lengths:
        histogram[1 << max(length - 1, 1).bit_length()] += 1
    speed = _speed(project, model)
    return TokenFigures(
        rows=len(lengths),
        total_tokens=sum(lengths),
        trained_tokens=found.trained,
        longest=lengths[-1] if lengths else 0,
        lengths=dict(sorted(histogram.items())),
        batches_per_epoch=-(-len(lengths) // config.batch_size),
        padding_share=1 - sum(lengths) / positions if positions else 0.0,
        seconds_per_epoch=found.trained / speed if speed else None,
    )


def _speed(project: Project, model: _Model | None) -> float | None:
    """Trained tokens per second, the median of the project's runs of this model; None where there are none."""
    if model is None or not project.registry_path.is_file():
        return None
    with registry.open_read_only(project.registry_path) as db:
        runs = registry.list_runs(db)
    name = project.relative(model.folder)
    speeds = [run["tokens_per_second"] for run in runs if run["model"] == name]
    known = [speed for speed in speeds if speed]
    return median(known) if known else None


def _target(project: Project, fix: str | None) -> Path | None:
    if fix is None:
        return None
    target = project.cwd / files.expanded(fix)
    if target.exists():
        raise Refused(f"{fix!r} is there already", hint="name a file or folder for `--fix` that is not there")
    return target


def _repair(
    there: Sequence[tuple[reading.Use, Path, str]], target: Path, is_folder: bool, removed: Mapping[str, str]
) -> dict[str, int]:
    """Write the rows that stay, byte for byte, each file whole or not at all; how many went, by kind."""
    gone: Counter[str] = Counter()
    try:
        with ExitStack() as stack:
            for use, file, shown in there:
                if shown in removed:
                    raise BadRequest(f"{shown} cannot be repaired: it has no rows that can be read")
                place = target / f"{use}.jsonl" if is_folder else target
                place.parent.mkdir(parents=True, exist_ok=True)
                beside = stack.enter_context(files.whole(place))
                with beside.open("wb") as stream:
                    for origin, line in file_rows.raw_rows(file, shown):
                        if kind := removed.get(origin):
                            gone[kind] += 1
                        else:
                            stream.write(line)
    except OSError as error:
        raise BadRequest(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    return dict(gone)
