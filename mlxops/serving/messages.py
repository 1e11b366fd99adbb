"""The messages of a chat request, as a model's chat template takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlxops.serving.shapes import ApiError, JsonObject

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""The roles of a request, and what templates call them."""
_COPIED = ("name", "tool_call_id", "reasoning_content")


def read_messages(value: Any) -> Sequence[JsonObject]:
    """The messages, each content one text. Raises `ApiError` with the message that is wrong."""
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "takes a list of at least one message")
    return [_message(each, f"messages[{number}]") for number, each in enumerate(value)]


def _message(value: Any, place: str) -> JsonObject:
    role = value.get("role") if isinstance(value, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(place, f"takes an object with a 'role': {', '.join(_ROLES)}")
    calls = value.get("tool_calls")
    message: JsonObject = {
        "role": _ROLES[role],
        "content": _content(value.get("content"), f"{place}.content", may_be_none=bool(calls)),
    }
    for name in _COPIED:
        if value.get(name) is None:
            continue
        if not isinstance(value[name], str):
            raise _wrong(f"{place}.{name}", "takes a text")
        message[name] = value[name]
    if calls:
        if role != "assistant" or not isinstance(calls, list):
            raise _wrong(f"{place}.tool_calls", "is a list, of an assistant's message")
        message["tool_calls"] = [_call(each, f"{place}.tool_calls[{number}]") for number, each in enumerate(calls)]
    return message


def _content(value: Any, place: str, *, may_be_none: bool) -> str:
    """The text of a message; parts of text are one after the other."""
    if value is None and may_be_none:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _wrong(place, "takes a text, or a list of parts of text")
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _wrong(place, "takes parts of text only: this server reads no pictures, sound or files")
        texts.append(part["text"])
    return "".join(texts)


def _call(value: Any, place: str) -> JsonObject:
    """A call with its arguments as an object, which is what templates write."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _wrong(place, "takes a function with a name and arguments")
    arguments = function.get("arguments") or "{}"
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise _wrong(f"{place}.function.arguments", "takes a JSON object, as a text")
    return {
        "id": str(value.get("id") or ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _wrong(place: str, words: str) -> ApiError:
    return ApiError(400, f"{place!r} {words}", code="invalid_value", param=place)
