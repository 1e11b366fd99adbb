"""What a chat template leaves out of a conversation, and whether that costs the row.

A template that drops a thought writes what the model sees in use, so that is only counted. One that drops words, a
message or a tool call would train on another conversation than the one in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlxops.data.formats import Record, Unusable
from mlxops.data.masking import MaskedText
from mlxops.data.templates import ChatTemplate, Message

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_END_OF_THOUGHT = "</think>"
_MARKER = "Quite other words"


@dataclass(frozen=True)
class Dropped:
    """What was left out and does not cost the row: the thoughts of trained turns, and whether the tools were."""

    thoughts: int
    tools: bool


def check(template: ChatTemplate, record: Record, rows: tuple[MaskedText, ...]) -> Dropped:
    """What the rows of a conversation lack. Raises `Unusable` with the first words, message or call that they lack."""
    thoughts = 0
    for row in rows:
        trained = dict(zip(row.turns, row.spans, strict=False))
        last = row.turns[-1] if row.turns else len(record.messages) - 1
        for position, message in enumerate(record.messages):
            start, stop = trained.get(position, (0, len(row.text)))
            text = row.text[start:stop]
            if position > last and not _is_written(message, text):
                continue  # rows end with what they train
            _check_message(template, record, position, last, text)
            if position in trained:
                thoughts += _drops_a_thought(message, text)
    names = [str(tool.get("function", tool).get("name", "")) for tool in record.tools]
    return Dropped(thoughts, not all(name in row.text for name in names for row in rows))


def _check_message(template: ChatTemplate, record: Record, position: int, last: int, text: str) -> None:
    message = record.messages[position]
    if not _is_written(message, text) and not _depends_on_words(template, record, position, last):
        raise Unusable(f"the model's chat template drops turn {position + 1}, of the role {message['role']!r}")
    for call in message.get("tool_calls", ()):
        name = call.get("function", call)["name"]
        if name not in text:
            raise Unusable(f"turn {position + 1}: the model's chat template does not write the tool call {name!r}")


def _is_written(message: Message, text: str) -> bool:
    words = message["content"]
    return words.strip() in text or (
        message["role"] == "assistant" and words.rpartition(_END_OF_THOUGHT)[2].strip() in text
    )


def _depends_on_words(template: ChatTemplate, record: Record, position: int, last: int) -> bool:
    """Whether a message that is not there word for word (but as JSON, say) is there at all."""
    changed = {**record.messages[position], "content": _MARKER}
    for count in (last + 1, len(record.messages)):
        messages = record.messages[:count]
        others = (*messages[:position], changed, *messages[position + 1 :])
        try:
            return template.render(others, record.tools) != template.render(messages, record.tools)
        except Unusable:
            continue
    return False


def _drops_a_thought(message: Message, text: str) -> bool:
    thoughts = [str(message[name]).strip() for name in _THOUGHTS if message.get(name)]
    if not thoughts and _END_OF_THOUGHT not in message["content"]:
        return False
    in_content = message["content"].rpartition(_END_OF_THOUGHT)[0].partition("<think>")[2].strip()
    return not all(thought in text for thought in [*thoughts, in_content])
