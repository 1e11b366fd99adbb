"""A tokenizer's chat template: what it writes for a conversation, and the tokens of its own in that text.

Which part of the text the assistant said is in `masking`; what the template leaves out is in `dropped`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlxops.data.formats import Unusable
from mlxops.data.recordings import Recordings, noting
from mlxops.errors import BadRequest
from mlxops.foreign import foreign_code, time_limit

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
Spans = tuple[Span, ...]
Message = dict[str, Any]
Messages = tuple[Message, ...]

_MOST_SECONDS = 20.0  # a conversation takes a template some microseconds
_HINT = 'take an instruct model, or train on rows of {"text"}'

_GENERATION_MARK = re.compile(r"{%-?\s*generation\s*-?%}")
_QUESTION: Message = {"role": "user", "content": "Question"}
_ANSWER: Message = {"role": "assistant", "content": "Rhododendron"}

# The messages, the tools and the generation prompt belong to the row, the rest to the call.
_OUR_ARGUMENTS = (
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "messages",
    "return_assistant_tokens_mask",
    "return_dict",
    "sanitize_control_tokens",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
)

# Some templates write today's date. A row has to have the same tokens tomorrow, or no run could be resumed, so the
# function they call is replaced by one that knows a single day: the one that Llama's templates fall back on.
_SINGLE_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%Y', '2024') | replace('%y', '24') | replace('%m', '07') | replace('%d', '26')"
    " | replace('%B', 'July') | replace('%b', 'Jul') | replace('%A', 'Friday') | replace('%a', 'Fri')"
    " | replace('%H', '12') | replace('%M', '00') | replace('%S', '00') }}{% endmacro %}\n"
)


class Token(NamedTuple):
    """A token of the tokenizer's own (`<|im_end|>`) in a text: where it stands, and its id."""

    start: int
    stop: int
    id: int


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A tokenizer's chat template with the arguments it is called with.

    `stops` are the ids at which generation stops; `header` is the text with which the template opens an assistant's
    turn after a plain turn of the user, or ''; `end` is the token that it writes itself after an answer; `in_parts`
    tells that contents go in as lists of parts.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int] = frozenset()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    header: str = ""
    end: int | None = None
    in_parts: bool = False
    _ids: Mapping[str, int] = field(default_factory=dict)
    _added: re.Pattern[str] | None = None
    _recordings: Recordings = field(default_factory=lambda: Recordings(None))

    def render(self, messages: Messages, tools: Messages, *, is_prompt: bool = False) -> str:
        """The text of messages, with the generation prompt if `is_prompt`. Raises `Unusable` where it cannot be."""
        shape = None if tools else self._recordings.shape(messages, is_prompt)
        if shape is not None and (known := self._recordings.text(shape, messages)) is not None:
            return known
        with_tools = list(tools) or None
        text: str = self._told(
            lambda: self.tokenizer.apply_chat_template(
                self._given(messages),
                tools=with_tools,
                chat_template=self._source(tools),
                add_generation_prompt=is_prompt,
                tokenize=False,
                **self.arguments,
            )
        )
        if shape is not None:
            self._recordings.learn(shape, messages, text, lambda texts: self._variables(messages, texts, is_prompt))
        return text

    def _variables(self, messages: Messages, texts: Sequence[Any], is_prompt: bool) -> dict[str, Any]:
        """What the template is given for a row without tools, with other texts in place of the contents."""
        return {
            "messages": self._given(
                tuple({**message, "content": text} for message, text in zip(messages, texts, strict=True))
            ),
            "tools": None,
            "documents": None,
            "add_generation_prompt": is_prompt,
            **self.tokenizer.special_tokens_map,
            **self.arguments,
        }

    def marks(self, messages: Messages, tools: Messages) -> tuple[str, Spans]:
        """The text of messages, and what the template's `{% generation %}` marks enclose in it."""
        from transformers.utils.chat_template_utils import render_jinja_template

        (text,), (marks,) = self._told(
            lambda: render_jinja_template(
                conversations=[self._given(messages)],
                tools=list(tools) or None,
                chat_template=self._source(tools),
                return_assistant_tokens_mask=True,
                **{**self.tokenizer.special_tokens_map, **self.arguments},
            )
        )
        return text, tuple((start, stop) for start, stop in marks if start < stop)

    def has_marks(self, tools: Messages) -> bool:
        """Whether the template marks itself what the assistant says."""
        return bool(_GENERATION_MARK.search(self._source(tools)))

    def tokens(self, text: str, start: int = 0) -> list[Token]:
        """The added tokens in a text from a place on, as the tokenizer finds them: the longest first."""
        if self._added is None:
            return []
        return [Token(found.start(), found.end(), self._ids[found[0]]) for found in self._added.finditer(text, start)]

    def whole_tokens(self, text: str, place: int) -> int:
        """The place, or the beginning of the added token that it would cut in two."""
        around = text[max(0, place - self._longest) : place + self._longest]
        first = place - min(place, self._longest)
        cut = (first + each.start for each in self.tokens(around) if first + each.start < place < first + each.stop)
        return next(cut, place)

    @property
    def writes_the_date(self) -> bool:
        """Whether the template writes today's date, so that rows carry a fixed one."""
        return self._source(()).startswith(_SINGLE_DAY)

    @property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

    def _source(self, tools: Messages) -> str:
        source: str = self.tokenizer.get_chat_template(tools=list(tools) or None)
        return _SINGLE_DAY + source if "strftime_now" in source else source

    def _given(self, messages: Messages) -> list[Message]:
        """The messages as the template gets them: a weight is for the training alone."""
        given = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        if self.in_parts:
            given = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in given]
        return given

    def _told(self, render: Callable[[], Any]) -> Any:
        endless = BadRequest(
            f"the chat template of {self._name} does not end: it computed for {_MOST_SECONDS:g} seconds", hint=_HINT
        )
        with foreign_code(self._refusal), time_limit(_MOST_SECONDS, endless):
            return render()

    def _refusal(self, words: str, raised: BaseException) -> Exception:
        import jinja2

        if isinstance(raised, jinja2.TemplateSyntaxError):
            return BadRequest(f"the chat template of {self._name} is broken: {words}", hint=_HINT)
        verb = "refuses" if isinstance(raised, jinja2.TemplateError) else "cannot write"
        return Unusable(f"the model's chat template {verb} it: {words}")

    @property
    def _name(self) -> str:
        return self.tokenizer.name_or_path or "the model"


def chat_template(
    tokenizer: PreTrainedTokenizerBase, *, stops: Collection[int] = (), arguments: Mapping[str, Any] | None = None
) -> ChatTemplate:
    """The chat template of a tokenizer. Raises `BadRequest` where there is none, or a broken one.

    `stops` are the ids at which generation stops (the tokenizer's end-of-text token unless given); `arguments` go to
    the template as they are (`--chat-template-config`).
    """
    name = tokenizer.name_or_path or "the model"
    templates = tokenizer.chat_template
    if not (templates.get("default") if isinstance(templates, dict) else templates):
        raise BadRequest(f"{name} has no chat template, and the data has conversations", hint=_HINT)
    if wrong := [name for name in _OUR_ARGUMENTS if name in (arguments or ())]:
        raise BadRequest(
            f"--chat-template-config cannot set {wrong[0]!r}",
            hint="""name what the template reads, as '{"enable_thinking": false}'""",
        )
    ids = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
    pattern = "|".join(map(re.escape, sorted(ids, key=len, reverse=True)))
    end = tokenizer.eos_token_id
    found = ChatTemplate(
        tokenizer=tokenizer,
        stops=frozenset(stops) or frozenset(() if end is None else (end,)),
        arguments=dict(arguments or {}),
        _ids=ids,
        _added=re.compile(pattern) if pattern else None,
    )
    if not _writes_words(found) and _writes_words(parts := replace(found, in_parts=True)):
        found = parts
    header, end = _around_an_answer(found)
    return replace(found, header=header, end=end, _recordings=Recordings(_noting(found)))


def _noting(template: ChatTemplate) -> jinja2.Template | None:
    """The template as one that notes what it does, None where transformers has no such engine as is known here."""
    from transformers.utils import chat_template_utils

    source = template._source(())
    compiled = getattr(chat_template_utils, "_compile_jinja_template", lambda _: None)(source)
    return compiled and noting(compiled, source)


def common(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning.

    >>> common("abc", "abd"), common("ab", "abc"), common("", "a")
    (2, 2, 0)
    """
    if one == other[: len(one)]:
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:  # compares slices, which is a hundred times faster than characters
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def with_text_arguments(messages: Messages) -> Messages:
    """The same messages, the arguments of their tool calls as JSON text."""
    return tuple(
        {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    )


def _with_text(call: Message) -> Message:
    function = call.get("function", call)
    if "arguments" not in function or isinstance(function["arguments"], str):
        return call
    function = {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return {**call, "function": function} if "function" in call else function


def _writes_words(template: ChatTemplate) -> bool:
    """Whether a plain answer is in what the template writes; some of those that know images want lists of parts."""
    try:
        return _ANSWER["content"] in template.render((_QUESTION, _ANSWER), ())
    except Unusable:
        return False


def _around_an_answer(template: ChatTemplate) -> tuple[str, int | None]:
    """What stands between a plain question and its answer, and the token of its own that follows the answer."""
    try:
        asked = template.render((_QUESTION,), ())
        prompt = template.render((_QUESTION,), (), is_prompt=True)
        answered = template.render((_QUESTION, _ANSWER), ())
    except Unusable:
        return "", None
    parted = common(asked, answered)
    start = min(template.whole_tokens(asked, parted), template.whole_tokens(answered, parted))
    stop = template.whole_tokens(answered, common(prompt, answered))
    behind = answered.rfind(_ANSWER["content"]) + len(_ANSWER["content"])
    return answered[start:stop], next((token.id for token in template.tokens(answered, behind)), None)
