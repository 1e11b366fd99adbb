"""Messages that are like others but for their words: what a rendering depends on is found by rendering them."""

from __future__ import annotations

from mlxops.data.templates import Message

Words = tuple[str, str, str]

OTHER_WORDS: tuple[Words, ...] = (("Q", "uite other word", "s"), ("Z", "ebras and some more", "x"))
"""Beginning, middle and end of texts that are written instead of others."""

_NAMES = ("role", "name", "tool_call_id")

QUESTION: Message = {"role": "user", "content": "Some question"}


def with_other_words(message: Message, words: Words) -> Message:
    """A message of the same shape with other words, other thoughts, and calls of another name."""
    changed = {
        key: _unlike(value, words) if isinstance(value, str) and value and key not in _NAMES else value
        for key, value in message.items()
    }
    if message.get("tool_calls"):
        changed["tool_calls"] = [_other_call(call, words) for call in message["tool_calls"]]
    elif not message["content"]:
        changed["content"] = "".join(words)
    return changed


def _other_call(call: Message, words: Words) -> Message:
    function = call.get("function", call)
    arguments = {f"{words[0].lower()}_other": "".join(words)}
    is_text = isinstance(function.get("arguments"), str)
    changed = {
        **function,
        "name": _unlike(function["name"], (words[0].lower(), "_other_name", words[2])),
        "arguments": f'{{"other": "{"".join(words)}"}}' if is_text else arguments,
    }
    return {**call, "function": changed} if "function" in call else changed


def _unlike(text: str, words: Words) -> str:
    first, between, last = words
    text = text.strip()
    if text.startswith(first):
        first = "W"
    if text.endswith(last):
        last = "k"
    return first + between + last


def named(turn: Message, position: int) -> str:
    """A turn as errors name it."""
    calls = [call.get("function", call)["name"] for call in turn.get("tool_calls", ())]
    return f"turn {position + 1}" + (f", a tool call of {calls[0]!r}" if calls and not turn["content"].strip() else "")


def end_of_last_words(turn: Message, text: str) -> int:
    """Where the last words of a turn end in a text, as far as they can be found there."""
    words = [turn["content"].rpartition("</think>")[2].strip()]
    words += [call.get("function", call)["name"] for call in turn.get("tool_calls", ())]
    return max(text.rfind(each) + len(each) for each in words)


def answer_of_a_tool(turn: Message) -> Message:
    """A message of the tool that a turn calls."""
    call = turn["tool_calls"][0]
    function = call.get("function", call)
    return {
        "role": "tool",
        "content": "Some answer",
        "name": function["name"],
        "tool_call_id": call.get("id", "abcdefghi"),
    }
