"""Records into token rows: the order of the rows, the limit on their length, and what a person should know of them.

The text of a conversation is in `templates`, what is trained of it in `masking`, the tokens of a text in `encoding`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mlxops.data import dropped, encoding
from mlxops.data.encoding import Encoded
from mlxops.data.formats import Record, Unusable
from mlxops.data.masking import Masked, MaskedText, mask
from mlxops.data.templates import ChatTemplate, chat_template, with_text_arguments
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

_ROWS_AT_ONCE = 256  # the tokenizer works on them in parallel; more are no faster
_EXAMPLES = 3
_LONGEST_REMAINDER = 60


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


@dataclass
class _Findings:
    """What is wrong so far, and what is counted on the way."""

    problems: list[str] = field(default_factory=list)
    without_tools: list[str] = field(default_factory=list)
    thoughts: int = 0
    endless: int = 0
    remainder: str = ""
    appended: dict[int, int] = field(default_factory=dict)
    split: int = 0
    conversations: int = 0
    parts: int = 0
    tokens_before: int = 0
    tokens_after: int = 0


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
    template = None
    if any(record.messages for record in records):
        template = chat_template(tokenizer, stops=stops, arguments=template_arguments)
    rows: list[TokenRow] = []
    findings = _Findings()
    for done in range(0, len(records), _ROWS_AT_ONCE):
        rows += _encode(records[done : done + _ROWS_AT_ONCE], tokenizer, template, mask_prompt, findings)
        if progress is not None:
            progress(min(done + _ROWS_AT_ONCE, len(records)), len(records))
    if findings.problems:
        hint = "change or remove these rows, or train a model whose chat template takes them"
        if use == "validation":
            hint += "; `--val-batches 0` trains without validation"
        raise InvalidData(
            f"{len(findings.problems):,} of {len(records):,} {use} rows cannot be used with this model",
            findings.problems,
            hint=hint,
        )
    tokenized = _cut(rows, max_seq_length, tokenizer, _notes(template, findings, len(records)))
    if tokenized.left_out and not tokenized.rows and use == "training":
        raise InvalidData(
            f"within {max_seq_length:,} tokens no row has a word to train on; "
            f"the longest has {tokenized.longest:,} tokens",
            [f"{origin}: nothing to train on within {max_seq_length:,} tokens" for origin in tokenized.left_out],
            hint=f"raise `--max-seq-length`, to {tokenized.longest} for all of every row",
        )
    return tokenized


def encode(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    mask_prompt: bool,
    stops: Collection[int] = (),
    template_arguments: Mapping[str, Any] | None = None,
) -> tuple[list[TokenRow], list[str], tuple[str, ...]]:
    """The token rows of records in full length, the problems of those that have none, and notes: one part of many."""
    template = None
    if any(record.messages for record in records):
        template = chat_template(tokenizer, stops=stops, arguments=template_arguments)
    findings = _Findings()
    rows = _encode(records, tokenizer, template, mask_prompt, findings)
    return rows, findings.problems, _notes(template, findings, len(records))


def masked(
    record: Record,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mask_prompt: bool,
    stops: Collection[int] = (),
    template_arguments: Mapping[str, Any] | None = None,
) -> tuple[MaskedText, ...]:
    """The rows of one conversation as text, in the order in which `tokenize` makes token rows of them."""
    template = chat_template(tokenizer, stops=stops, arguments=template_arguments)
    return _mask(template, record, mask_prompt, _Findings())[1].rows


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


def _encode(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    mask_prompt: bool,
    findings: _Findings,
) -> list[TokenRow]:
    """Token rows of full length, in the order given."""
    import numpy

    texts = [record for record in records if record.text is not None]
    masked: list[tuple[Record, MaskedText]] = []
    wholes: dict[int, str] = {}
    for record in records:
        if record.text is None and template is not None:
            try:
                whole, found = _mask(template, record, mask_prompt, findings)
            except Unusable as unusable:
                findings.problems.append(f"{record.origin}: {unusable}")
                continue
            if len(found.rows) > 1:
                wholes[id(record)] = whole
            masked += [(record, row) for row in found.rows]
    by_record: dict[int, list[Encoded]] = {}
    encoded_texts = encoding.encode_texts([record.text or "" for record in texts], tokenizer) if texts else []
    for record, row in zip(texts, encoded_texts, strict=True):
        by_record[id(record)] = [row]
    for (record, _), row in zip(masked, encoding.encode_masked([row for _, row in masked], tokenizer), strict=True):
        by_record.setdefault(id(record), []).append(row)
        findings.split += row.is_split
    _count_parts(wholes, by_record, tokenizer, findings)
    return [
        TokenRow(tokens=numpy.array(row.tokens, dtype=numpy.int32), spans=row.spans, origin=record.origin)
        for record in records
        for row in by_record.get(id(record), ())
    ]


def _mask(template: ChatTemplate, record: Record, mask_prompt: bool, findings: _Findings) -> tuple[str, Masked]:
    record, whole = _rendered(template, record)
    found = mask(template, record, whole) if mask_prompt else Masked(rows=(MaskedText(text=whole, turns=(), spans=()),))
    left_out = dropped.check(template, record, found.rows)
    findings.thoughts += left_out.thoughts
    findings.without_tools += [record.origin] if left_out.tools else []
    findings.endless += found.endless
    findings.remainder = findings.remainder or found.remainder
    for row in found.rows:
        if row.appended is not None:
            findings.appended[row.appended] = findings.appended.get(row.appended, 0) + 1
    return whole, found


def _rendered(template: ChatTemplate, record: Record) -> tuple[Record, str]:
    """The whole text of a row; the arguments of its calls are text where the template wants that."""
    try:
        return record, template.render(record.messages, record.tools)
    except Unusable:
        messages = with_text_arguments(record.messages)
        if messages == record.messages:
            raise
        try:
            return replace(record, messages=messages), template.render(messages, record.tools)
        except Unusable:
            pass
        raise


def _count_parts(
    wholes: Mapping[int, str],
    by_record: Mapping[int, list[Encoded]],
    tokenizer: PreTrainedTokenizerBase,
    findings: _Findings,
) -> None:
    """Count what conversations that became several rows are in tokens, as one row and as several."""
    whole = encoding.encode_masked([MaskedText(text=text, turns=(), spans=()) for text in wholes.values()], tokenizer)
    findings.conversations += len(wholes)
    findings.parts += sum(len(by_record[each]) for each in wholes)
    findings.tokens_before += sum(len(row.tokens) for row in whole)
    findings.tokens_after += sum(len(row.tokens) for each in wholes for row in by_record[each])


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


def _notes(template: ChatTemplate | None, findings: _Findings, count: int) -> tuple[str, ...]:
    if template is None:
        return ()
    notes = []
    if findings.conversations:
        notes.append(
            f"{findings.conversations:,} of {count:,} conversations became {findings.parts:,} rows, because the chat "
            "template writes earlier turns differently once later ones follow: "
            f"{findings.tokens_after:,} tokens instead of {findings.tokens_before:,}"
        )
    if findings.remainder:
        shown = (
            findings.remainder
            if len(findings.remainder) <= _LONGEST_REMAINDER
            else findings.remainder[:_LONGEST_REMAINDER] + "…"
        )
        notes.append(
            f"the generation prompt ends with {shown!r}, which the rows do not have (`--chat-template-config`)"
        )
    if findings.thoughts:
        notes.append(f"the chat template drops the thoughts of {_counted(findings.thoughts, 'turn')}")
    for token, rows in sorted(findings.appended.items()):
        name = template.tokenizer.convert_ids_to_tokens(token)
        notes.append(
            f"the chat template writes no token that ends the last turn: {name!r} is added to {_counted(rows, 'row')}"
        )
    if findings.endless:
        notes.append(
            f"no token ends {_counted(findings.endless, 'earlier turn')} of the assistant, so none is trained there"
        )
    if findings.split:
        notes.append(
            f"in {_counted(findings.split, 'row')} a token would join prompt and answer: they are tokenized apart"
        )
    if findings.without_tools:
        rows = len(findings.without_tools)
        notes.append(
            f"the chat template leaves the tools out, in {_counted(rows, 'row')}, first in {findings.without_tools[0]}"
        )
    if template.writes_the_date:
        notes.append("the chat template writes the date: rows say 26 July 2024, so that they are the same tomorrow")
    return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
