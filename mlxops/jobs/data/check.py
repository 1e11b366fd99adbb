"""Data before a training: everything that is wrong with it at once, and how large the training would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mlxops import data, words
from mlxops.config import CheckDataConfig, LoraConfig
from mlxops.data import checking, file_rows, reading, splitting
from mlxops.data.checking import Finding
from mlxops.data.repetitions import ELSEWHERE, EXACT, NEAR_ROWS, Repetitions
from mlxops.errors import MlxopsError
from mlxops.jobs.data.figures import TokenCounts, TokenFigures, figures, tokens_per_second, trained_within
from mlxops.jobs.data.repair import repair, target_of
from mlxops.jobs.train import fit
from mlxops.jobs.train.prepare import Progress, Tokenize
from mlxops.models.folders import ModelInfo, check_model, find_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.rows import TokenRow

_KEPT = 1000  # findings of one kind that are named; the others are counted
_REMOVED = (EXACT, ELSEWHERE)


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
    texts: Counter[str] = field(default_factory=Counter)
    removed: dict[str, str] | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if there are not too many of its kind."""
        self.levels[finding.level] += 1
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= _KEPT:
            self.findings.append(finding)
        if self.removed is not None and (finding.level == "error" or finding.kind in _REMOVED):
            self.removed.setdefault(finding.origin, finding.kind)

    def add_problem(self, kind: str, problem: str) -> None:
        """Count a problem that is spelled `file:line: reason`."""
        origin, _, reason = problem.partition(": ")
        self.add(Finding(level="error", kind=kind, origin=origin, message=reason))


@dataclass(frozen=True)
class _Model:
    """What tokens are checked with, and what is counted of them."""

    folder: Path
    info: ModelInfo
    tokenize: Tokenize
    preparation: data.Preparation
    limit: int
    counts: TokenCounts = field(default_factory=TokenCounts)


@dataclass
class _KeptBack:
    """The rows of a training file that training keeps back for validation: the rule, and those that are at work."""

    rule: Callable[[str], bool]
    origins: set[str] = field(default_factory=set)


def check(invocation: Invocation, config: CheckDataConfig, progress: Progress) -> CheckedData:
    """Check all files of a data set. Raises `NotFound` where there is none, `Refused` where `--fix` would overwrite."""
    project = invocation.project
    path = project.resolve(config.path)
    there = reading.files_of(path, root=project.root)
    target = target_of(project, config.fix)
    model = _model(project, config, progress)
    found, repetitions = _Found(removed=None if target is None else {}), Repetitions(near=config.near)
    rule = _rule(there) if model else _none
    for use, file, shown in there:
        problems = file_rows.Findings()
        records = _with_progress(file_rows.records_of(file, shown, problems), file, f"checking {shown}", progress)
        kept_back = _KeptBack(rule if use == "train" else _none)
        parts = _looked_at(records, shown, problems, found, repetitions, kept_back)
        if model is None:
            for _ in parts:
                pass
        else:
            for part in model.preparation.parts(parts):
                _check_tokens(part, model, found, kept_back if use == "train" else None)
        if texts := found.texts[shown]:
            _note_mixture(shown, texts, found)
        if not found.rows[shown] and not problems.count:
            level: checking.Level = "error" if use == "train" else "warning"
            found.add(Finding(level=level, kind="empty files", origin=shown, message="the file has no rows"))
    for finding in repetitions.nearly():
        found.add(finding)
    if repetitions.is_full:
        found.notes.append(f"like rows were looked for among the first {NEAR_ROWS:,} rows")
    if model:
        _check_together(model, found, there[0][2])
    removed = repair(there, target, path.is_dir(), found.removed or {}, found.rows) if target else {}
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
        tokens=_figures(project, model, config, found) if model else None,
        notes=found.notes,
        repaired=project.relative(target) if target else None,
        removed=removed,
        exit_code=2 if found.levels["error"] else 1 if config.strict and found.levels["warning"] else 0,
    )


def _none(_: str) -> bool:
    return False


def _rule(there: Sequence[tuple[reading.Use, Path, str]]) -> Callable[[str], bool]:
    """Which rows of the training file training keeps back: none where there is a validation file with rows."""
    files = {use: (file, shown) for use, file, shown in there}
    if "valid" in files:
        problems = file_rows.Findings()
        if next(file_rows.records_of(*files["valid"], problems), None) is not None or problems.count:
            return _none
    return splitting.rule(record.content for record in file_rows.records_of(*files["train"], file_rows.Findings()))


def _with_progress(records: Iterator[data.Record], file: Path, what: str, progress: Progress) -> Iterator[data.Record]:
    try:
        with file.open("rb") as stream:
            total = sum(piece.count(b"\n") for piece in iter(lambda: stream.read(1 << 20), b""))
    except OSError:  # for whoever reads the rows to say
        total = 0
    number = 0
    for number, record in enumerate(records, 1):
        if number % data.ROWS_AT_ONCE == 0:
            progress(what, number, max(number, total))
        yield record
    progress(what, number, number)


def _model(project: Project, config: CheckDataConfig, progress: Progress) -> _Model | None:
    if config.model is None:
        return None
    folder = find_model(config.model, resolve=project.resolve, models_folder=project.models_folder)
    info = check_model(folder, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    settings = LoraConfig(model=config.model, data=config.path, max_seq_length=config.max_seq_length)
    tokenize = Tokenize(tokenizer, eos_ids(folder, tokenizer), settings, progress)
    return _Model(folder, info, tokenize, tokenize.preparation(with_words=True), config.max_seq_length)


def _looked_at(
    records: Iterator[data.Record],
    shown: str,
    problems: file_rows.Findings,
    found: _Found,
    repetitions: Repetitions,
    kept_back: _KeptBack,
) -> Iterator[list[data.Record]]:
    """The rows of a file in parts, looked at one by one; those that training keeps back are named in `kept_back`."""
    while True:
        part = list(islice(records, data.ROWS_AT_ONCE))
        contents = [record.content for record in part]
        for record, content in zip(part, contents, strict=True):
            _count(record, shown, found)
            for finding in checking.of_row(record):
                found.add(finding)
            if kept_back.rule(content):
                kept_back.origins.add(record.origin)
        for finding in repetitions.of_rows(part, contents):
            found.add(finding)
        for problem in problems.problems:
            found.add_problem("unusable rows", problem)
        for origin, key in problems.twice:
            message = f"the key {key!r} stands there twice: the last value counts"
            found.add(Finding(level="warning", kind="keys twice", origin=origin, message=message))
        problems.clear()  # they are counted, and a file may have many
        if not part:
            return
        yield part


def _count(record: data.Record, shown: str, found: _Found) -> None:
    found.rows[shown] += 1
    if record.text is not None:
        found.texts[shown] += 1
        found.turns["text"] += 1
        found.characters["text"] += len(record.text)
    for message in record.messages:
        found.turns[message["role"]] += 1
        found.characters[message["role"]] += len(message["content"])


def _note_mixture(shown: str, texts: int, found: _Found) -> None:
    """A file may mix formats; where it is by mistake, a person should know."""
    if talks := found.rows[shown] - texts:
        rows = f"{words.plural(texts, 'row')} of text, {words.plural(talks, 'conversation')}"
        found.notes.append(f"{shown} mixes formats: {rows}")


def _check_tokens(part: data.Part, model: _Model, found: _Found, kept_back: _KeptBack | None) -> None:
    """Check the token rows of a part; those of a training file (`kept_back` is given) are counted."""
    for problem in part.problems:
        found.add_problem("rows the chat template refuses", problem)
    for prepared in part.rows:
        row = prepared.row
        if kept_back is not None and row.origin not in kept_back.origins:
            model.counts.add(row, prepared.words, model.limit)
        for finding in _of_tokens(row, model):
            found.add(finding)
    if kept_back is not None:
        kept_back.origins.difference_update(prepared.record.origin for prepared in part.rows)


def _of_tokens(row: TokenRow, model: _Model) -> Iterator[Finding]:
    length, limit = row.length, model.limit
    try:
        fit.check_rows([row], model.tokenize.tokenizer, model.info, model.folder.name)
    except MlxopsError as error:
        yield Finding(level="error", kind="tokens the model lacks", origin=row.origin, message=error.message)
    if not trained_within(row, limit):
        message = f"nothing of its {length:,} tokens is trained within {limit:,}: training leaves it out"
        yield checking.warning("nothing to train", row.origin, message)
    elif length > limit:
        message = f"{length:,} tokens, of which {length - limit:,} would be cut"
        if row.spans and row.spans[-1][1] > limit:
            message += ": an answer is cut off"
        yield checking.warning("rows over the limit", row.origin, message)
    ends = fit.ends_of_turns(row, limit)[-1:]
    if row.spans != ((0, length),) and any(end not in model.tokenize.stops for end in ends):
        message = "no token at which generation stops is trained at its end: such a model never stops"
        yield checking.warning("ends of turns", row.origin, message)


def _check_together(model: _Model, found: _Found, origin: str) -> None:
    """What is wrong with all rows together."""
    counts = model.counts
    if counts.rows and not counts.trained:
        message = f"within {model.limit:,} tokens no row has a word to train on"
        found.add(Finding(level="error", kind="nothing to train", origin=origin, message=message))
    elif counts.rows and counts.cut == counts.rows:
        message = f"every row is longer than {model.limit:,} tokens"
        found.add(Finding(level="error", kind="nothing to train", origin=origin, message=message))
    found.notes += model.preparation.notes(sum(found.rows.values()))


def _figures(project: Project, model: _Model, config: CheckDataConfig, found: _Found) -> TokenFigures:
    speed = None
    try:
        speed = tokens_per_second(project, model.folder)
    except MlxopsError as error:
        found.notes.append(f"the time is unknown: {error.message}")
    return figures(model.counts, config.batch_size, speed)
