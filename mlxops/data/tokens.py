"""Rows ready to train on: their order, the limit on their length, and what a person should know of them.

How a record becomes token rows is in `preparing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlxops.data import encoding
from mlxops.data.formats import Record
from mlxops.data.preparing import ROWS_AT_ONCE, Preparation
from mlxops.errors import InvalidData
from mlxops.rows import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Use = Literal["training", "validation", "test"]
Progress = Callable[[int, int], None]

MASKING_RULES = 2
"""The version of the rules by which a record becomes tokens and trained spans.

It is raised by every change that gives any record other tokens or spans: a run whose rows are no longer what they were
is then told why it cannot be resumed.
"""

_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row as a person reads it: its text, and the texts that are trained, in order."""

    origin: str
    text: str
    trained: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """Rows ready to train on. Figures are of `rows`, save `truncated` and `longest`, which are of all.

    `longest` counts the tokens of the longest row before it was cut; `left_out` names (`file:line`) the rows of which
    nothing is left to train on within the limit. `examples` are the first rows.
    """

    rows: tuple[TokenRow, ...]
    total_tokens: int
    trained_tokens: int
    truncated: int
    longest: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    examples: tuple[Example, ...] = ()


def tokenize(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_seq_length: int,
    mask_prompt: bool,
    use: Use = "training",
    stops: Collection[int] = (),
    template_arguments: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Tokenized:
    """The records as token rows, in their order, each cut to `max_seq_length`.

    Trained are the assistant's turns with the tokens that end them (`masking`), or every token if `mask_prompt` is
    off; rows of text are trained whole and end with the end-of-text token. A conversation may become several rows of
    one origin. `stops` are the ids at which generation stops; `template_arguments` go to the chat template;
    `progress` is told (done, total). Raises `InvalidData` with every row that the model's chat template cannot show,
    or where nothing is left of any row to train on. Rows of another `use` are named by it, and may all be left out.
    """
    preparation = Preparation(tokenizer, mask_prompt=mask_prompt, stops=stops, template_arguments=template_arguments)
    rows: list[TokenRow] = []
    problems: list[str] = []
    places = range(0, len(records), ROWS_AT_ONCE)
    parts = preparation.parts(records[place : place + ROWS_AT_ONCE] for place in places)
    for done, part in zip(places, parts, strict=True):
        rows += [prepared.row for prepared in part.rows]
        problems += part.problems
        if progress is not None:
            progress(min(done + ROWS_AT_ONCE, len(records)), len(records))
    if problems:
        hint = "change or remove these rows, or train a model whose chat template takes them"
        if use == "validation":
            hint += "; `--val-batches 0` trains without validation"
        raise InvalidData(
            f"{len(problems):,} of {len(records):,} {use} rows cannot be used with this model",
            problems,
            hint=hint,
        )
    tokenized = _cut(rows, max_seq_length, tokenizer, preparation.notes(len(records)))
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


def _cut(rows: list[TokenRow], limit: int, tokenizer: PreTrainedTokenizerBase, notes: tuple[str, ...]) -> Tokenized:
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
        examples=_examples(kept, tokenizer),
    )


def _examples(rows: Sequence[TokenRow], tokenizer: PreTrainedTokenizerBase) -> tuple[Example, ...]:
    found = []
    for row in rows[:_EXAMPLES]:
        tokens = row.tokens.tolist()

        def text(stop: int, tokens: list[int] = tokens) -> str:
            return encoding.decode(tokens[:stop], tokenizer)

        # some tokenizers leave out the blank at the beginning of what they decode, so a part is a difference
        trained = tuple(
            text(stop)[len(text(start)) :]
            if text(stop).startswith(text(start))
            else encoding.decode(tokens[start:stop], tokenizer)
            for start, stop in row.spans
        )
        found.append(Example(origin=row.origin, text=text(row.length), trained=trained))
    return tuple(found)
