"""Which part of a rendered conversation the assistant said, and how many rows that takes.

What is trained of an assistant's turn is what the model has to write in use: it starts where the generation prompt
ends and stops after the token at which generation stops. Both are found by comparing renderings: with the turns before
alone, and with other words in the turn. Where the template's `{% generation %}` marks enclose the words, they count.

A template may write earlier turns in another way once later ones follow (thoughts are dropped, tools move). Then what
the model sees in use is not in one text, and the conversation becomes several rows: as few as the renderings allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from mlxops.data.formats import Record, Unusable
from mlxops.data.probes import OTHER_WORDS, QUESTION, answer_of_a_tool, end_of_last_words, named, with_other_words
from mlxops.data.templates import ChatTemplate, Message, Messages, Span, Spans, Token, common

Found = Literal["prompt", "comparison", "header", "rewritten", "marks"]
"""How the start of a turn was found.

Its words follow the prompt; renderings with other words part there; the template's role header ends there; the prompt
ends there, in a row of its own, because the turns before are written otherwise once this one follows; the template
marks it.
"""


@dataclass(frozen=True, kw_only=True)
class MaskedText:
    """One row as text: `spans` in characters are the trained turns at `turns`, in order.

    `appended` is the id that follows the text, where the template writes no token at which generation stops. `found`
    says of each turn how its start was found.
    """

    text: str
    turns: tuple[int, ...]
    spans: Spans
    appended: int | None = None
    found: tuple[Found, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Masked:
    """The rows of one conversation.

    `endless` counts turns inside a row that no token ends; `remainder` is what the generation prompt has and the rows
    have not, such as an opened thought.
    """

    rows: tuple[MaskedText, ...]
    endless: int = 0
    remainder: str = ""


class _End(NamedTuple):
    """Where a turn ends in a text, and whether generation stops there."""

    stop: int
    is_stop: bool


class _Place(NamedTuple):
    """Where the words of a turn stand in a text: training starts at `start`, the words end at `words`."""

    text: str
    start: int
    words: int
    found: Found
    remainder: str = ""


class _Turn(NamedTuple):
    """A turn in the rendering that ends with it.

    `start` is where training starts, `words` where the turn's own words end, `closed` where the template's text after
    them ends; `end` is None where no token ends the turn.
    """

    position: int
    text: str
    start: int
    words: int
    closed: int
    end: _End | None
    remainder: str
    found: Found


def mask(template: ChatTemplate, record: Record, whole: str) -> Masked:
    """The rows of a conversation; `whole` is its rendering. Raises `Unusable` where the template drops a turn."""
    conversation = _Conversation(template, record.messages, record.tools, whole)
    if template.has_marks(record.tools) and (row := _by_marks(conversation)):
        return Masked(rows=(row,))
    turns = [conversation.locate(position) for position in conversation.trained]
    rows: list[MaskedText] = []
    endless, left = 0, list(turns)
    while left:
        last = left[-1]
        text, count = last.text, last.position + 1
        # the turns that follow the last trained one stay, where they change nothing before it
        if last is turns[-1] and conversation.end(last, whole, len(record.messages)) is not None:
            text, count = whole, len(record.messages)
        here = [(turn, end) for turn in left if (end := conversation.end(turn, text, count)) is not None]
        row, without = _row(conversation, text, here)
        rows.append(row)
        endless += without
        taken = {turn.position for turn, _ in here}
        left = [turn for turn in left if turn.position not in taken]
    remainder = next((turn.remainder for turn in turns if turn.remainder), "")
    return Masked(rows=tuple(reversed(rows)), endless=endless, remainder=remainder)


def is_trained(message: Message) -> bool:
    """Whether a message is a turn of the assistant that is trained: one of weight 0 is context."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def _row(conversation: _Conversation, text: str, here: list[tuple[_Turn, _End]]) -> tuple[MaskedText, int]:
    """One row with the turns that are in it, and how many of them no token ends."""
    last, end = here[-1]
    appended = None
    if not end.is_stop and last.end is None:
        appended = conversation.stop_after(last.position, last.text[: last.words])
    if appended is not None:
        text = text[: end.stop]
    endless = sum(turn.end is None and not end.is_stop for turn, end in here) - (appended is not None)
    positions = tuple(turn.position for turn, _ in here)
    spans = tuple((turn.start, end.stop) for turn, end in here)
    found = tuple(turn.found for turn, _ in here)
    return MaskedText(text=text, turns=positions, spans=spans, appended=appended, found=found), endless


@dataclass(frozen=True)
class _Conversation:
    """A conversation and its renderings."""

    template: ChatTemplate
    messages: Messages
    tools: Messages
    whole: str

    @property
    def trained(self) -> tuple[int, ...]:
        return tuple(position for position, message in enumerate(self.messages) if is_trained(message))

    def render(self, messages: Messages, *, is_prompt: bool = False) -> str | None:
        """The text of messages, None where the template refuses them."""
        try:
            return self.template.render(messages, self.tools, is_prompt=is_prompt)
        except Unusable:
            return None

    def locate(self, position: int) -> _Turn:
        """Where a turn starts and ends in the rendering that ends with it, or in the whole if that is refused."""
        rendered = None if position == len(self.messages) - 1 else self.render(self.messages[: position + 1])
        text, after = (self.whole, self.messages[position + 1 :]) if rendered is None else (rendered, ())
        prompt = self.render(self.messages[:position], is_prompt=True)
        place = _plainly(self.messages[position], text, prompt) or self._compared(position, text, prompt, after)
        text, words = place.text, place.words
        limit = self._next_words(position + 1, text, len(self.messages)) if after else len(text)
        end = self._first_stop(text, words, limit) or self._own_end(text, words)
        return _Turn(
            position=position,
            text=text,
            start=place.start,
            words=words,
            closed=words if after else max(words, len(text.rstrip())),
            end=end,
            remainder=place.remainder,
            found=place.found,
        )

    def end(self, turn: _Turn, text: str, count: int) -> _End | None:
        """Where a turn ends in the rendering of the first `count` messages, None where the text has it otherwise."""
        alike = common(text, turn.text)
        if alike < turn.words:
            return None
        if turn.end is not None and alike >= turn.end.stop:
            return turn.end
        limit = max(alike, self._next_words(turn.position + 1, text, count)) if count > turn.position + 1 else len(text)
        stop = self._first_stop(text, turn.words, limit)
        if stop is None and turn.end is None:
            return _End(min(turn.closed, alike), is_stop=False)
        return stop

    def stop_after(self, position: int, said: str) -> int | None:
        """The token with which the template opens the next turn if generation stops there, else the end of text."""
        before = self.messages[: position + 1]
        following = answer_of_a_tool(before[-1]) if before[-1].get("tool_calls") else QUESTION
        text = self.render((*before, following))
        if text is not None:
            # a turn that is no longer the last one may be written differently
            words = len(said) if text.startswith(said) else end_of_last_words(before[-1], text)
            limit = text.rfind(following["content"])
            stops = [each.id for each in self._stops(text, words) if limit < 0 or each.start < limit]
            if stops:
                return stops[0]
        end = self.template.tokenizer.eos_token_id
        return int(end) if end is not None else min(self.template.stops, default=None)

    def _compared(self, position: int, text: str, prompt: str | None, after: Messages) -> _Place:
        """The place of a turn by comparing renderings; `after` are the messages that follow it in the text."""
        own, words = self._own(position, text, after)
        header = self.template.header
        if prompt is None:
            place = text.rfind(header, 0, own) if header else -1
            if place < 0:
                return _Place(text, own, words, "comparison")
            return _Place(text, place + len(header), words, "header")
        parted = common(prompt, text)
        start = self.template.whole_tokens(text, min(parted, own))
        remainder = ""
        if parted < len(prompt):
            asked = self._end_of_words(position - 1, prompt)
            if start < asked:
                # the turns before are written differently once this one follows: in use, the model sees the prompt
                place = text.rfind(prompt[asked:], 0, own)
                start = own if place < 0 else place + len(prompt) - asked
                return _Place(prompt + text[start:], len(prompt), words + len(prompt) - start, "rewritten")
            if text[start:own].split() == prompt[start:].split():  # the same header, other white space
                start = own
            elif prompt[start:].strip():
                remainder = prompt[start:]
        for part in (header, header.rstrip()):
            if part and text.startswith(part, start) and start + len(part) <= own:
                return _Place(text, start + len(part), words, "header")
        return _Place(text, start, words, "prompt" if start == len(prompt) else "comparison", remainder)

    def _own(self, position: int, text: str, after: Messages) -> tuple[int, int]:
        """From where to where the rendering depends on the fields of a turn. Raises `Unusable` where it does not."""
        turn, before = self.messages[position], self.messages[:position]
        changed = [self.render((*before, with_other_words(turn, words), *after)) for words in OTHER_WORDS]
        found = _differences(text, changed)
        if found is None:
            said = turn["content"].strip()
            if not said or said not in text:
                raise Unusable(f"{named(turn, position)}: the model's chat template does not write it")
            return text.rfind(said), text.rfind(said) + len(said)
        return found

    def _end_of_words(self, position: int, prompt: str) -> int:
        """Where the words of the last message before a generation prompt end in the prompt; 0 where there are none."""
        if position < 0:
            return 0
        message, before = self.messages[position], self.messages[:position]
        changed = [self.render((*before, with_other_words(message, words)), is_prompt=True) for words in OTHER_WORDS]
        return (_differences(prompt, changed) or (0, 0))[1]

    def _next_words(self, following: int, text: str, count: int) -> int:
        """Where the rendering of the first `count` messages starts to depend on the words of one; 0 if unknown."""
        message, before, after = (
            self.messages[following],
            self.messages[:following],
            self.messages[following + 1 : count],
        )
        changed = [self.render((*before, with_other_words(message, words), *after)) for words in OTHER_WORDS]
        return (_differences(text, changed) or (0, 0))[0]

    def _stops(self, text: str, start: int) -> list[Token]:
        return [each for each in self.template.tokens(text, start) if each.id in self.template.stops]

    def _first_stop(self, text: str, start: int, limit: int) -> _End | None:
        return next((_End(each.stop, True) for each in self._stops(text, start) if each.start < limit), None)

    def _own_end(self, text: str, start: int) -> _End | None:
        """The template's own end of a turn: an added token with nothing but white space before it."""
        first = next(iter(self.template.tokens(text, start)), None)
        if first is None or text[start : first.start].strip():
            return None
        return _End(first.stop, False)


def _differences(text: str, changed: list[str | None]) -> Span | None:
    """The first and the last place at which a text differs from one of the others, None where it does from none."""
    others = [other for other in changed if other is not None and other != text]
    if not others:
        return None
    start = min(common(text, other) for other in others)
    return start, max(start, len(text) - min(common(text[::-1], other[::-1]) for other in others))


def _plainly(turn: Message, text: str, prompt: str | None) -> _Place | None:
    """The place of a turn where nothing has to be compared: its words follow the prompt as they are."""
    words = turn["content"].rstrip()
    if not words or words[0].isspace() or turn.keys() - {"role", "content", "weight"} or "think>" in words:
        return None
    if prompt is None or not text.startswith(prompt):
        return None
    rest = text[len(prompt) :]
    first = len(prompt) + len(rest) - len(rest.lstrip())
    if not text.startswith(words, first):
        return None
    stop = first + len(words)
    trailing = turn["content"][len(words) :]
    return _Place(text, len(prompt), stop + (len(trailing) if text.startswith(trailing, stop) else 0), "prompt")


def _by_marks(conversation: _Conversation) -> MaskedText | None:
    """The row by the template's own marks, with the token that ends each turn; None where they miss the words."""
    template, whole, messages = conversation.template, conversation.whole, conversation.messages
    text, marks = template.marks(messages, conversation.tools)
    of_turns = _marks_of_turns(conversation, marks)
    if text != whole or of_turns is None:
        return None
    spans, words, end = [], 0, _End(0, False)
    for position, (start, stop) in of_turns:
        said = messages[position]["content"].strip()
        place = whole.find(said, start, stop)
        if place < 0:
            return None
        if is_trained(messages[position]):
            words = place + len(said)
            end = _end_of_mark(template, whole, words, stop)
            spans.append((start, end.stop))
    appended = None if end.is_stop else conversation.stop_after(conversation.trained[-1], whole[:words])
    if appended is not None:
        text = text[: end.stop]
    found: tuple[Found, ...] = tuple("marks" for _ in spans)
    return MaskedText(text=text, turns=conversation.trained, spans=tuple(spans), appended=appended, found=found)


def _marks_of_turns(conversation: _Conversation, marks: Spans) -> list[tuple[int, Span]] | None:
    """Each turn of the assistant with what its marks enclose together; None where one has none."""
    template, messages, tools = conversation.template, conversation.messages, conversation.tools
    turns = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
    if len(marks) == len(turns):
        return list(zip(turns, marks, strict=True))
    try:
        counts = [0, *(len(template.marks(messages[: position + 1], tools)[1]) for position in turns)]
    except Unusable:
        return None
    groups = [marks[before:after] for before, after in pairwise(counts)]
    if counts[-1] != len(marks) or not all(groups):
        return None
    return [(position, (group[0][0], group[-1][1])) for position, group in zip(turns, groups, strict=True)]


def _end_of_mark(template: ChatTemplate, text: str, words: int, stop: int) -> _End:
    """The end of a mark with the token that ends the turn, which may follow the mark at once."""
    tokens = [each for each in template.tokens(text, words) if each.start <= stop]
    if found := next((each for each in tokens if each.id in template.stops), None):
        return _End(found.stop, True)
    inside = [each for each in tokens if each.start < stop or each.id == template.end]
    if inside and not text[inside[-1].stop : stop].strip():
        return _End(inside[-1].stop, True)
    return _End(stop, False)
