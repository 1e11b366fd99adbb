"""Records into token rows of full length: the one way from data to what is trained.

The text of a conversation is in `templates`, what is trained of it in `masking`, the tokens of a text in `encoding`.
Texts are made here, part by part, while the tokenizer works on the part before in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlxops.data import dropped, encoding
from mlxops.data.encoding import Encoded
from mlxops.data.formats import Record, Unusable
from mlxops.data.masking import Masked, MaskedText, mask
from mlxops.data.templates import ChatTemplate, chat_template, with_text_arguments
from mlxops.garbage import collect_rarely
from mlxops.rows import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_AT_ONCE = 256
"""Rows of one part: the tokenizer works on them in parallel; more are no faster."""

WordTokens = Sequence[tuple[str, int, int]]
"""Who said which tokens of a row: the role, and from where to where in the row's tokens."""

_LONGEST_REMAINDER = 60
_OBJECTS_BETWEEN = 100_000
"""After how many new objects Python looks for cycles: rows have none, and its own 700 take a tenth of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRow:
    """A token row of full length and what it was made of.

    `text` is the row of a conversation as text, None for a row of text; `is_apart` tells that prompt and answer were
    tokenized apart; `words` are None unless asked for, and where the tokenizer does not tell where its tokens stand.
    """

    row: TokenRow
    record: Record
    text: MaskedText | None
    is_apart: bool
    words: WordTokens | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of some records, in their order, and the problems of those that have none."""

    rows: list[PreparedRow]
    problems: list[str]


@dataclass
class _Findings:
    """What is wrong so far, and what is counted on the way."""

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


@dataclass(frozen=True)
class _Texts:
    """What the tokenizer gets of a part: rows of text, rows of conversations, and those that became several, whole."""

    records: Sequence[Record]
    texts: Sequence[Record]
    masked: Sequence[tuple[Record, MaskedText]]
    wholes: Mapping[int, str]


@dataclass
class _Tokens:
    """What came of it."""

    texts: list[Encoded]
    masked: list[Encoded]
    wholes: list[Encoded]


class Preparation:
    """Records into token rows by one tokenizer, and what there is to say of all of them.

    `stops` are the ids at which generation stops; `template_arguments` go to the chat template; `with_words` finds
    out who said which tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mask_prompt: bool,
        stops: Collection[int] = (),
        template_arguments: Mapping[str, Any] | None = None,
        with_words: bool = False,
    ) -> None:
        self._tokenizer, self._mask_prompt, self._with_words = tokenizer, mask_prompt, with_words
        self._stops, self._arguments = stops, template_arguments
        self._template: ChatTemplate | None = None
        self._findings = _Findings()

    def parts(self, parts: Iterable[Sequence[Record]]) -> Iterator[Part]:
        """The rows of each part. Raises `BadRequest` at the first conversation if there is no usable chat template."""
        with collect_rarely(_OBJECTS_BETWEEN), ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokens") as thread:
            waiting: tuple[_Texts, list[str], Future[_Tokens]] | None = None
            for records in parts:
                texts, problems = self._texts(records)
                started = thread.submit(self._tokens, texts)
                if waiting is not None:
                    yield self._part(*waiting)
                waiting = texts, problems, started
            if waiting is not None:
                yield self._part(*waiting)

    def notes(self, count: int) -> tuple[str, ...]:
        """What there is to say of the rows so far, which were made of `count` records."""
        return _notes(self._template, self._findings, count)

    def _texts(self, records: Sequence[Record]) -> tuple[_Texts, list[str]]:
        problems: list[str] = []
        masked: list[tuple[Record, MaskedText]] = []
        wholes: dict[int, str] = {}
        for record in records:
            if record.text is None:
                try:
                    whole, found = self._masked(record)
                except Unusable as unusable:
                    problems.append(f"{record.origin}: {unusable}")
                    continue
                if len(found.rows) > 1:
                    wholes[id(record)] = whole
                masked += [(record, row) for row in found.rows]
        texts = [record for record in records if record.text is not None]
        return _Texts(records, texts, masked, wholes), problems

    def _masked(self, record: Record) -> tuple[str, Masked]:
        if self._template is None:
            self._template = chat_template(self._tokenizer, stops=self._stops, arguments=self._arguments)
        return _mask(self._template, record, self._mask_prompt, self._findings)

    def _tokens(self, given: _Texts) -> _Tokens:
        wholes = [MaskedText(text=text, turns=(), spans=()) for text in given.wholes.values()]
        return _Tokens(
            texts=encoding.encode_texts([record.text or "" for record in given.texts], self._tokenizer),
            masked=encoding.encode_masked([row for _, row in given.masked], self._tokenizer),
            wholes=encoding.encode_masked(wholes, self._tokenizer),
        )

    def _part(self, given: _Texts, problems: list[str], started: Future[_Tokens]) -> Part:
        import numpy

        tokens = started.result()
        by_record: dict[int, list[Encoded]] = {}
        for record, row in zip(given.texts, tokens.texts, strict=True):
            by_record[id(record)] = [row]
        for (record, _), row in zip(given.masked, tokens.masked, strict=True):
            by_record.setdefault(id(record), []).append(row)
        findings = self._findings
        findings.split += sum(row.is_split for row in tokens.masked)
        findings.conversations += len(given.wholes)
        findings.parts += sum(len(by_record[each]) for each in given.wholes)
        findings.tokens_before += sum(len(row.tokens) for row in tokens.wholes)
        findings.tokens_after += sum(len(row.tokens) for each in given.wholes for row in by_record[each])
        texts_of = {id(row): text for (_, text), row in zip(given.masked, tokens.masked, strict=True)}
        rows = []
        for record in given.records:
            for row in by_record.get(id(record), ()):
                text = texts_of.get(id(row))
                array = numpy.array(row.tokens, dtype=numpy.int32)
                rows.append(
                    PreparedRow(
                        row=TokenRow(tokens=array, spans=row.spans, origin=record.origin),
                        record=record,
                        text=text,
                        is_apart=row.is_split,
                        words=_words(record, text, row) if self._with_words else None,
                    )
                )
        return Part(rows=rows, problems=problems)


def _words(record: Record, text: MaskedText | None, row: Encoded) -> WordTokens | None:
    """The tokens of what each message says, as far as the template writes it."""
    if text is None:
        return [("text", 0, len(row.tokens))]
    if row.places is None:
        return None
    found = []
    place = 0
    whole, places = text.text, row.places
    trained = dict(zip(text.turns, text.spans, strict=False))
    for position, message in enumerate(record.messages):
        words = message["content"].strip()
        span = trained.get(position)
        if span is not None and "tool_calls" in message and message["tool_calls"]:
            start, stop = span  # the span of a call is all the assistant's
        else:
            start = whole.find(words, place if span is None else max(place, span[0]))
            stop = start + len(words)
        if start >= 0 and stop > start:
            found.append((message["role"], *encoding.tokens_of((start, stop), places)))
            place = stop
    return found


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
