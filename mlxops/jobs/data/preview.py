"""Rows as they are trained: prepared by the code that prepares a training, and taken apart for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlxops import data
from mlxops.config import LoraConfig, PreviewDataConfig
from mlxops.data import encoding
from mlxops.data.masking import MaskedText
from mlxops.errors import NotFound
from mlxops.jobs.train.prepare import Progress, Tokenize
from mlxops.models.folders import check_model, find_model
from mlxops.models.tokenizer import eos_ids, load_tokenizer
from mlxops.projects.invocation import Invocation
from mlxops.rows import TokenRow

_SHOWN = 3

# The rules by which spans are found, as docs/data.md numbers them.
_STARTS = {
    "prompt": "starts where the generation prompt ends (rule 1)",
    "comparison": "starts where renderings with other words part (rule 1)",
    "marks": "starts and ends at the template's generation marks (rule 8)",
}
_ENDS_ADDED = "ends with a token that is added, because the template writes none (rule 3)"
_ENDS_BY_STOP = "ends with a token at which generation stops (rule 2)"
_ENDS_OTHERWISE = "ends with no token at which generation stops (rule 2)"


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
        tokenized = tokenize([record], "tokens", "training")
        texts = tokenize.preparation().masked(record) if record.messages else ()
        for part, row in enumerate(tokenized.rows):
            text = texts[part] if texts and len(texts) == len(tokenized.rows) else None
            rows.append(_previewed(row, text, use, part, len(tokenized.rows), config.max_seq_length, tokenize))
        if record.text is not None:
            notes.append(f"{record.origin}: a row of text is trained whole")
        notes += [f"{record.origin}: {note}" for note in tokenized.notes]
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
    row: TokenRow, text: MaskedText | None, use: str, part: int, parts: int, limit: int, tokenize: Tokenize
) -> PreviewedRow:
    tokens = [int(token) for token in row.tokens]
    kept = min(limit, row.length)
    spans = [(start, stop) for start, stop in row.spans]
    trained = sum(max(min(stop, kept) - max(start, 1), 0) for start, stop in spans)
    return PreviewedRow(
        origin=row.origin,
        use=use,
        part=part + 1,
        parts=parts,
        length=row.length,
        kept_tokens=kept,
        trained_tokens=trained,
        tokens=tokens,
        spans=spans,
        pieces=_pieces(tokens, spans, kept, tokenize.tokenizer),
        rules=_rules(tokens, spans, text, tokenize.stops),
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


def _rules(tokens: list[int], spans: list[tuple[int, int]], text: MaskedText | None, stops: Sequence[int]) -> list[str]:
    """How each trained part was found."""
    if text is None:
        return []
    if not text.turns:
        return ["the whole conversation is trained (--no-mask-prompt)"]
    found = []
    for place, (turn, how, (_, stop)) in enumerate(zip(text.turns, text.found, spans, strict=True)):
        is_added = text.appended is not None and place == len(spans) - 1
        end = _ENDS_ADDED if is_added else _ENDS_BY_STOP if tokens[stop - 1] in stops else _ENDS_OTHERWISE
        found.append(f"turn {turn + 1} {_STARTS[how]}, and {end}")
    return found
