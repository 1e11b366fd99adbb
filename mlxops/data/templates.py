"""A conversation as the model's own chat template writes it, and where the assistant's words stand in that text.

The rule: the turns before an assistant's turn, rendered with the generation prompt, end where its words begin; the
turns up to and with it, rendered without, hold its end. What is trained is from there to the end of the last
end-of-turn token in it; what the template writes after that (a line break, mostly) is not. Both renderings have to be
beginnings of the rendering of the whole row, up to that point. Where they are not (a template that drops the thinking
of earlier turns, or ends every rendering in its own way), the template's `{% generation %}` marks count, and without
them the row is refused: a span in the wrong place would train on the user's words without anyone seeing it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxops.data.formats import Record, Unusable
from mlxops.errors import BadRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]
Messages = tuple[dict[str, Any], ...]

_GENERATION_MARK = re.compile(r"{%-?\s*generation\s*-?%}")
_PROBE_WORDS = "Rhododendron"
_PROBE = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": _PROBE_WORDS})

# Some templates write today's date. A row has to have the same tokens tomorrow, or no run could be resumed, so the
# function they call is replaced by one that knows a single day: the one that Llama's templates fall back on.
_SINGLE_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%Y', '2024') | replace('%y', '24') | replace('%m', '07') | replace('%d', '26')"
    " | replace('%B', 'July') | replace('%b', 'Jul') | replace('%A', 'Friday') | replace('%a', 'Fri')"
    " | replace('%H', '12') | replace('%M', '00') | replace('%S', '00') }}{% endmacro %}\n"
)


class NotStable(Unusable):
    """A row whose assistant turns cannot be found in the template's rendering."""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A tokenizer's chat template; `end_of_turn` is the token that it writes after an assistant's words, or ''."""

    tokenizer: PreTrainedTokenizerBase
    end_of_turn: str

    def render(self, messages: Messages, tools: Messages, *, is_prompt: bool = False) -> str:
        """The text of messages, up to where the assistant would begin to speak if `is_prompt`."""
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            chat_template=_source(self.tokenizer, tools),
            add_generation_prompt=is_prompt,
            tokenize=False,
        )
        return text

    def whole(self, record: Record) -> str:
        """The text of a row. Raises `Unusable` with the template's own words where it refuses the row."""
        import jinja2

        try:
            return self.render(record.messages, record.tools)
        except jinja2.TemplateError as error:
            raise Unusable(f"the model's chat template refuses it: {error}") from None
        except TypeError as error:  # such as text + list inside the template
            raise Unusable(f"the model's chat template cannot write it: {error}") from None

    def spans(self, record: Record, whole: str) -> Spans:
        """Where the assistant's words stand in the text of a row, in characters, each with its end-of-turn token."""
        try:
            found = self._spans_by_prefix(record, whole)
        except NotStable:
            if not _GENERATION_MARK.search(_source(self.tokenizer, record.tools)):
                raise
            found = self._spans_by_mark(record, whole)
        turns = [message for message in record.messages if message["role"] == "assistant"]
        for turn, (start, stop) in zip(turns, found, strict=True):
            for call in turn.get("tool_calls", ()):
                if call.get("function", call)["name"] not in whole[start:stop]:
                    raise Unusable("the model's chat template does not write tool calls")
        return found

    def leaves_words_out(self, record: Record, whole: str) -> bool:
        """Whether the template dropped a message or a tool."""
        words = [message["content"].strip() for message in record.messages]
        names = [str(tool.get("function", tool).get("name", "")) for tool in record.tools]
        return not all(part in whole for part in words + names)

    def _spans_by_prefix(self, record: Record, whole: str) -> Spans:
        import jinja2

        messages, spans = record.messages, []
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if position == 0:
                raise NotStable("the assistant speaks first, and the model's chat template cannot tell where")
            is_last = position == len(messages) - 1
            try:
                before = self.render(messages[:position], record.tools, is_prompt=True)
                after = whole if is_last else self.render(messages[: position + 1], record.tools)
            except (jinja2.TemplateError, TypeError) as error:
                raise NotStable(
                    f"the model's chat template refuses the turns before turn {position + 1}: {error}"
                ) from None
            stop = self._end(after, len(before), len(after))
            if not after.startswith(before) or whole[:stop] != after[:stop]:
                raise NotStable(
                    f"turn {position + 1}: the model's chat template writes the turns up to here otherwise "
                    "when they stand alone, so the assistant's words cannot be told apart"
                )
            spans.append((len(before), stop))
        return tuple(spans)

    def _spans_by_mark(self, record: Record, whole: str) -> Spans:
        from transformers.utils.chat_template_utils import render_jinja_template

        (text,), (marks,) = render_jinja_template(
            conversations=[list(record.messages)],
            tools=list(record.tools) or None,
            chat_template=_source(self.tokenizer, record.tools),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        turns = [message for message in record.messages if message["role"] == "assistant"]
        holds = [turn["content"].strip() in text[start:stop] for turn, (start, stop) in zip(turns, marks, strict=False)]
        if text != whole or len(marks) != len(turns) or not all(holds):
            raise NotStable("the chat template's {% generation %} marks do not enclose the assistant's words")
        return tuple((start, self._end(whole, start, stop)) for start, stop in marks)

    def _end(self, text: str, start: int, stop: int) -> int:
        """Where the turn in `text[start:stop]` ends: after its end-of-turn token, which may follow a mark at once."""
        if not self.end_of_turn:
            return stop
        if text.startswith(self.end_of_turn, stop):
            return stop + len(self.end_of_turn)
        found = text.rfind(self.end_of_turn, start, stop)
        return stop if found < 0 else found + len(self.end_of_turn)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The chat template of a tokenizer. Raises `BadRequest` where there is none, or a broken one."""
    import jinja2

    name = tokenizer.name_or_path or "the model"
    hint = 'take an instruct model, or train on rows of {"text"}'
    templates = tokenizer.chat_template
    if not (templates.get("default") if isinstance(templates, dict) else templates):
        raise BadRequest(f"{name} has no chat template, and the data has conversations", hint=hint)
    bare = ChatTemplate(tokenizer=tokenizer, end_of_turn="")
    try:
        text = bare.render(_PROBE, ())
    except jinja2.TemplateSyntaxError as error:
        raise BadRequest(f"the chat template of {name} is broken: {error}", hint=hint) from error
    except (jinja2.TemplateError, TypeError):
        return bare
    return ChatTemplate(tokenizer=tokenizer, end_of_turn=_end_of_turn(tokenizer, text))


def writes_the_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes today's date, so that rows carry a fixed one."""
    return _source(tokenizer, ()).startswith(_SINGLE_DAY)


def _source(tokenizer: PreTrainedTokenizerBase, tools: Messages) -> str:
    source: str = tokenizer.get_chat_template(tools=list(tools) or None)
    return _SINGLE_DAY + source if "strftime_now" in source else source


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The first token of its own that follows the assistant's words in the rendering of the probe."""
    tail = text.rpartition(_PROBE_WORDS)[2] if _PROBE_WORDS in text else ""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    found = sorted((tail.index(token), -len(token), token) for token in added if token.strip() and token in tail)
    return found[0][2] if found else ""
