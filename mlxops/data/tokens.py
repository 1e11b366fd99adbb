"""Records into tokens, with the spans that are trained.

A conversation is tokenized once, as the whole text that the model's chat template makes of it; spans of characters
(`templates`) become spans of tokens by the offsets of that tokenization. A token that holds any of the assistant's
characters belongs to the assistant, also where it began in the template's text: else a one-word answer after
"Answer: " would not be trained at all.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlxops.data.formats import Record, Unusable
from mlxops.data.templates import ChatTemplate, NotStable, Spans, chat_template, writes_the_date
from mlxops.errors import InvalidData
from mlxops.rows import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Use = Literal["training", "validation", "test"]
Progress = Callable[[int, int], None]

MASKING_RULES = 1
"""The version of the rules by which a record becomes tokens and trained spans.

It is raised by every change that gives any record other tokens or spans: a run whose rows are no longer what they were
is then told why it cannot be resumed.
"""

_ROWS_AT_ONCE = 256  # the tokenizer works on them in parallel; more are no faster


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """Rows ready to train on. Figures are of `rows`, save `truncated` and `longest`, which are of all.

    `longest` counts the tokens of the longest row before it was cut; `left_out` names (`file:line`) the rows of which
    nothing is left to train on within the limit.
    """

    rows: tuple[TokenRow, ...]
    total_tokens: int
    trained_tokens: int
    truncated: int
    longest: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A row as text; `spans` in characters, None to train all of it."""

    record: Record
    text: str
    spans: Spans | None


def tokenize(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_seq_length: int,
    mask_prompt: bool,
    use: Use = "training",
    progress: Progress | None = None,
) -> Tokenized:
    """The records as token rows, in their order, each cut to `max_seq_length`.

    Trained are the assistant's turns with their end-of-turn tokens, or every token if `mask_prompt` is off; rows of
    text are trained whole and end with the end-of-text token. `progress` is told (done, total). Raises `InvalidData`
    with every row that the model's chat template cannot show, or where nothing is left of any row to train on. Rows
    of another `use` are named by it, and may all be left out.
    """
    template = chat_template(tokenizer) if any(record.messages for record in records) else None
    rows: list[TokenRow] = []
    problems: list[tuple[str, Unusable]] = []
    shortened: list[str] = []
    for done in range(0, len(records), _ROWS_AT_ONCE):
        rendered = []
        for record in records[done : done + _ROWS_AT_ONCE]:
            try:
                rendered.append(_render(record, template, mask_prompt))
            except Unusable as unusable:
                problems.append((record.origin, unusable))
        if template:
            shortened += [row.record.origin for row in rendered if template.leaves_words_out(row.record, row.text)]
        rows += _encode(rendered, tokenizer, problems)
        if progress is not None:
            progress(min(done + _ROWS_AT_ONCE, len(records)), len(records))
    if problems:
        hint = "change or remove these rows, or train a model whose chat template takes them"
        if use == "validation":
            hint += "; `--val-batches 0` trains without validation"
        if any(isinstance(reason, NotStable) for _, reason in problems):
            hint = "`--no-mask-prompt` trains on whole rows"
        raise InvalidData(
            f"{len(problems):,} of {len(records):,} {use} rows cannot be used with this model",
            [f"{origin}: {reason}" for origin, reason in problems],
            hint=hint,
        )
    tokenized = _cut(rows, max_seq_length, _notes(tokenizer, template, shortened, len(records)))
    if tokenized.left_out and not tokenized.rows and use == "training":
        raise InvalidData(
            f"within {max_seq_length:,} tokens no row has a word to train on; "
            f"the longest has {tokenized.longest:,} tokens",
            [f"{origin}: nothing to train on within {max_seq_length:,} tokens" for origin in tokenized.left_out],
            hint=f"raise `--max-seq-length`, to {tokenized.longest} for all of every row",
        )
    return tokenized


def identity(rows: Iterable[TokenRow]) -> str:
    """SHA-256 over the tokens and spans of rows in their order: what decides the weights, whatever file it is from."""
    digest = hashlib.sha256()
    for row in rows:
        spans = ",".join(f"{start}-{stop}" for start, stop in row.spans)
        digest.update(f"{row.length}:{spans};".encode())
        digest.update(row.tokens.astype("<i4").tobytes())
    return digest.hexdigest()


def content_identity(records: Iterable[Record]) -> str:
    """SHA-256 over what records say in their order, whatever tokens and spans come of them."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.content}\n".encode())
    return digest.hexdigest()


def _render(record: Record, template: ChatTemplate | None, mask_prompt: bool) -> _Rendered:
    if template is None or record.text is not None:
        return _Rendered(record, record.text or "", None)
    text = template.whole(record)
    return _Rendered(record, text, template.spans(record, text) if mask_prompt else None)


def _encode(
    rendered: list[_Rendered], tokenizer: PreTrainedTokenizerBase, problems: list[tuple[str, Unusable]]
) -> list[TokenRow]:
    """Token rows of full length, in the order given."""
    import numpy

    found: dict[int, TokenRow] = {}
    for is_text in (False, True):
        group = [number for number, row in enumerate(rendered) if (row.record.text is not None) is is_text]
        if not group:
            continue
        # A chat template writes the begin-of-text token itself; for a text the tokenizer knows whether there is one.
        encoded = tokenizer(
            [rendered[number].text for number in group],
            add_special_tokens=is_text,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for place, number in enumerate(group):
            row, tokens = rendered[number], encoded["input_ids"][place]
            if is_text:
                tokens = _complete(tokens, tokenizer)
            try:
                if row.spans is None:
                    spans: Spans = ((0, len(tokens)),)
                elif tokenizer.is_fast:
                    spans = _by_offsets(row.spans, encoded.encodings[place].offsets)
                else:
                    spans = _by_prefix(row.text, row.spans, tokens, tokenizer)
            except NotStable as unusable:
                problems.append((row.record.origin, unusable))
                continue
            array = numpy.array(tokens, dtype=numpy.int32)
            found[number] = TokenRow(tokens=array, spans=spans, origin=row.record.origin)
    return [found[number] for number in sorted(found)]


def _complete(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A text's tokens with one begin-of-text token where the tokenizer writes one, and an end-of-text token."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and tokens[:2] == [begin, begin]:  # the text spelled it out, too
        tokens = tokens[1:]
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, end]


def _by_offsets(spans: Spans, offsets: list[tuple[int, int]]) -> Spans:
    """Spans of tokens: a token is in a span when it holds any of its characters."""
    found: list[tuple[int, int]] = []
    for start, stop in spans:
        first = bisect_right(offsets, start, key=lambda offset: offset[1])
        after = bisect_left(offsets, stop, key=lambda offset: offset[0])
        found.append((max(first, found[-1][1] if found else 0), after))
    return tuple(found)


def _by_prefix(text: str, spans: Spans, tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> Spans:
    """Spans of tokens for a tokenizer without offsets: the tokens of the text up to each border are counted."""
    places = {}
    for border in {border for span in spans for border in span}:
        before = tokenizer(text[:border], add_special_tokens=False, verbose=False)["input_ids"]
        if tokens[: len(before)] != before:
            raise NotStable("a token joins the assistant's words with the chat template's, and the tokenizer is slow")
        places[border] = len(before)
    return tuple((places[start], places[stop]) for start, stop in spans)


def _cut(rows: list[TokenRow], limit: int, notes: tuple[str, ...]) -> Tokenized:
    kept, left_out = [], []
    for whole in rows:
        row = whole
        if whole.length > limit:
            spans = tuple((start, min(stop, limit)) for start, stop in whole.spans if start < limit)
            row = TokenRow(tokens=whole.tokens[:limit].copy(), spans=spans, origin=whole.origin)
        if row.trained:
            kept.append(row)
        else:
            left_out.append(row.origin)
    return Tokenized(
        rows=tuple(kept),
        total_tokens=sum(row.length for row in kept),
        trained_tokens=sum(row.trained for row in kept),
        truncated=sum(row.length > limit for row in rows),
        longest=max((row.length for row in rows), default=0),
        left_out=tuple(left_out),
        notes=notes,
    )


def _notes(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, shortened: list[str], count: int
) -> tuple[str, ...]:
    notes = []
    if shortened:
        notes.append(
            f"the chat template leaves words out, in {len(shortened):,} of {count:,} rows, first in {shortened[0]}"
        )
    if template and not template.end_of_turn:
        notes.append("the chat template writes no token after the assistant's words, so none is trained")
    if template and writes_the_date(tokenizer):
        notes.append("the chat template writes the date: rows say 26 July 2024, so that they are the same tomorrow")
    return tuple(notes)
