"""Rows as they are trained: prepared by the code that prepares a training, and taken apart for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlxops import data
from mlxops.config import LoraConfig, PreviewDataConfig
from mlxops.data import encoding
from mlxops.data.masking import Found
from mlxops.errors import InvalidData, NotFound
from mlxops.jobs.data.figures import trained_within
from mlxops.jobs.train.prepare import Progress, Tokenize
from mlxops.models.folders import check_model, find_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer
from mlxops.projects.invocation import Invocation

_SHOWN = 3

# The rules by which spans are found, as docs/data.md numbers them.
_STARTS: Mapping[Found, str] = {
    "prompt": "starts where the generation prompt ends (rule 1)",
    "comparison": "starts where renderings with other words part (rule 1)",
    "header": "starts behind the template's own role header (rule 4)",
    "rewritten": "starts where the generation prompt ends, which writes the turns before differently (rule 5)",
    "marks": "starts and ends at the template's generation marks (rule 8)",
}
_ENDS_ADDED = "ends with a token that is added, because the template writes none (rule 3)"
_ENDS_BY_STOP = "ends with the first token at which generation stops (rule 2)"
_ENDS_BY_TEMPLATE = "ends with the template's own token, at which generation does not stop (rule 2)"
_ENDS_NOWHERE = "ends with its words: no token ends it (rule 3)"
_APART = "prompt and answer are tokenized apart, because a token would join them (rule 7)"
_SEVERAL = "the conversation becomes {} rows: earlier turns are written differently once later ones follow (rule 5)"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a row: its text, whether it is trained, and whether it lies beyond the longest row."""

    text: str
    is_trained: bool
    is_cut: bool


@dataclass(frozen=True, kw_only=True)
class PreviewedRow:
    """A row as it is trained, and of how many rows of its conversation it is which.

    `tokens`, `spans` and `pieces` are of the whole row; of them `kept_tokens` are within the limit.
    """

    origin: str
    use: str
    part: int
    parts: int
    length: int
    kept_tokens: int
    trained_tokens: int
    tokens: Sequence[int]
    spans: Sequence[tuple[int, int]]
    pieces: Sequence[Piece]
    rules: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DataPreview:
    """Rows as they are trained, the model they are prepared for, and what a person should know."""

    model: str
    max_seq_length: int
    rows: Sequence[PreviewedRow]
    notes: Sequence[str]


def preview(invocation: Invocation, config: PreviewDataConfig, progress: Progress) -> DataPreview:
    """The rows asked for. Raises `NotFound` for a row that is not there, and what a training would raise."""
    project = invocation.project
    splits = data.read(project.resolve(config.path), root=project.root)
    chosen = _chosen(splits, config.row)
    folder = find_model(config.model, resolve=project.resolve, models_folder=project.models_folder)
    check_model(folder, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    settings = LoraConfig(
        model=config.model,
        data=config.path,
        mask_prompt=config.mask_prompt,
        max_seq_length=1 << 40,  # what is cut is shown as well
        chat_template_config=config.chat_template_config,
    )
    tokenize = Tokenize(tokenizer, eos_ids(folder, tokenizer), settings, progress)
    rows: list[PreviewedRow] = []
    notes: list[str] = []
    for use, record in chosen:
        preparation = tokenize.preparation()
        (part,) = preparation.parts([[record]])
        if part.problems:
            raise InvalidData(f"{record.origin} cannot be used with this model", part.problems)
        for number, prepared in enumerate(part.rows, 1):
            rows.append(_previewed(prepared, use, number, len(part.rows), config.max_seq_length, tokenize))
        notes += [f"{record.origin}: {note}" for note in preparation.notes(1)]
    return DataPreview(
        model=project.relative(folder), max_seq_length=config.max_seq_length, rows=rows, notes=[*splits.notes, *notes]
    )


def _chosen(splits: data.Splits, asked: str | None) -> list[tuple[str, data.Record]]:
    """The rows asked for, with what they are used for."""
    uses = (("training", splits.train), ("validation", splits.valid), ("test", splits.test))
    records = [(use, record) for use, part in uses for record in part]
    if asked is None:
        return records[:_SHOWN]
    file = splits.train[0].origin.rpartition(" row ")[0] or splits.train[0].origin.rpartition(":")[0]
    names = {f"{file}:{asked}", f"{file} row {asked}"} if asked.isdecimal() else {asked}
    found = [each for each in records if each[1].origin in names]
    found = found or [each for each in records if any(each[1].origin.endswith(f"/{name}") for name in names)]
    if not found:
        first, last = records[0][1].origin, records[-1][1].origin
        raise NotFound(f"there is no row {asked!r}", hint=f"rows are called by file and line, from {first} to {last}")
    return found[:1]


def _previewed(
    prepared: data.PreparedRow, use: str, part: int, parts: int, limit: int, tokenize: Tokenize
) -> PreviewedRow:
    row = prepared.row
    tokens = [int(token) for token in row.tokens]
    kept = min(limit, row.length)
    spans = [(start, stop) for start, stop in row.spans]
    return PreviewedRow(
        origin=row.origin,
        use=use,
        part=part,
        parts=parts,
        length=row.length,
        kept_tokens=kept,
        trained_tokens=trained_within(row, kept),
        tokens=tokens,
        spans=spans,
        pieces=_pieces(tokens, spans, kept, tokenize.tokenizer),
        rules=_rules(prepared, parts, tokenize),
    )


def _pieces(tokens: list[int], spans: list[tuple[int, int]], kept: int, tokenizer: Any) -> list[Piece]:
    """The row in parts that are trained or not; together they are its text."""
    borders = sorted({0, kept, len(tokens), *(border for span in spans for border in span)})
    texts = [encoding.decode(tokens[:border], tokenizer) for border in borders]
    pieces = []
    for place, (start, stop) in enumerate(pairwise(borders)):
        before, after = texts[place], texts[place + 1]
        # some tokenizers leave out the blank at the beginning of what they decode, so a part is a difference
        text = after[len(before) :] if after.startswith(before) else encoding.decode(tokens[start:stop], tokenizer)
        is_trained = any(first <= start and stop <= last for first, last in spans)
        pieces.append(Piece(text=text, is_trained=is_trained, is_cut=start >= kept))
    return pieces


def _rules(prepared: data.PreparedRow, parts: int, tokenize: Tokenize) -> list[str]:
    """How each trained part was found, and what the row is made of."""
    text, row = prepared.text, prepared.row
    if text is None:
        return ["the whole text is trained"]
    if not text.turns:
        return ["the whole conversation is trained (--no-mask-prompt)"]
    found = []
    for place, (turn, how, (_, stop)) in enumerate(zip(text.turns, text.found, row.spans, strict=True)):
        is_added = text.appended is not None and place == len(row.spans) - 1
        end = _ENDS_ADDED if is_added else _end(int(row.tokens[stop - 1]), tokenize)
        found.append(f"turn {turn + 1} {_STARTS[how]}, and {end}")
    found += [_SEVERAL.format(parts)] if parts > 1 else []
    found += [_APART] if prepared.is_apart else []
    return found


def _end(token: int, tokenize: Tokenize) -> str:
    if token in tokenize.stops:
        return _ENDS_BY_STOP
    return _ENDS_BY_TEMPLATE if token in tokenize.tokenizer.added_tokens_decoder else _ENDS_NOWHERE
