"""The row formats: one JSON object in, one `Record` out. Files and tokens are elsewhere.

    {"messages": [{"role", "content"}, …], "tools": […]}
    {"conversations": [{"from", "value"}, …]}                 ShareGPT
    {"prompt", "completion"}
    {"instruction", "response"}                               with "context", if any
    {"instruction", "input", "output"}                        Alpaca; "input" may be missing
    {"text"}

A row of messages may have `tools`, and a `system` text beside its turns; a turn of the assistant with `"weight": 0` is
context and not trained. Every row says by its own keys what it is. All
but the last become messages, word for word: nothing is stripped or re-wrapped, save that `input` follows `instruction`
after a blank line, that a list of text parts is one text, and that a tool call's arguments in a string become the
object they spell (mlx-lm's server does the last two as well, so that the model meets in training what it meets in use).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

FORMATS = (
    '{"messages"}, {"prompt", "completion"}, {"instruction", "response"}, {"instruction", "input", "output"}, '
    '{"conversations"} or {"text"}'
)

_ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
_PAIRS = (("prompt", "completion"), ("instruction", "response"), ("instruction", "output"))
_KEYS = {"messages", "conversations", "text", *(key for pair in _PAIRS for key in pair)}
_CONTENT = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))
_JSON_WORDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


class Unusable(ValueError):
    """A row that cannot be used; the text is the reason. Whoever reads many rows collects these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row: `messages` of a conversation with at least one assistant turn, or, without any, a `text`."""

    origin: str
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str | None = None

    @property
    def content(self) -> str:
        """What the row says, in one spelling: rows of the same content are the same row, whatever their format."""
        said = {"messages": self.messages, "tools": self.tools, "text": self.text}
        return _CONTENT.encode(said)


def parse(row: object, origin: str) -> Record:
    """The record that a JSON value stands for. Raises `Unusable` with the reason."""
    if not isinstance(row, dict):
        raise Unusable(f"not an object but {_kind(row)}")
    # Tables exported to JSONL write null for what a row does not have.
    nulls = [key for key, value in row.items() if value is None and key in _KEYS]
    row = {key: value for key, value in row.items() if value is not None}
    if "messages" in row or "conversations" in row:
        messages = _read_turns(row, "messages" if "messages" in row else "conversations")
    elif pair := next((pair for pair in _PAIRS if pair[0] in row and pair[1] in row), None):
        messages = _read_pair(row, *pair)
    elif "text" in row:
        if not _text(row["text"], "text").strip():
            raise Unusable("text is empty")
        return Record(origin=origin, text=row["text"])
    elif "chosen" in row and "rejected" in row:
        raise Unusable(
            "a row of preferences, which this version does not train on; its keys are 'chosen' and 'rejected'"
        )
    elif nulls:
        raise Unusable(f"{' and '.join(nulls)} {'is' if len(nulls) == 1 else 'are'} null")
    else:
        raise Unusable(f"no known row format; its keys are {', '.join(map(repr, row)) or 'none'}")
    system = _text(row.get("system", ""), "system")
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return Record(origin=origin, messages=tuple(messages), tools=_read_tools(row.get("tools", [])))


def _read_pair(row: dict[str, Any], asked: str, answered: str) -> list[dict[str, Any]]:
    question, answer = _text(row[asked], asked), _text(row[answered], answered)
    if not answer.strip():
        raise Unusable(f"{answered} is empty")
    if asked == "instruction":
        for key in ("input", "context"):
            if more := _text(row.get(key, ""), key):
                question = f"{question}\n\n{more}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read_turns(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    turns = row[key]
    if not isinstance(turns, list):
        raise Unusable(f"{key} is not a list but {_kind(turns)}")
    if not turns:
        raise Unusable(f"{key} is empty")
    messages = [_read_turn(turn, f"turn {number}") for number, turn in enumerate(turns, 1)]
    turns_of_assistant = [message for message in messages if message["role"] == "assistant"]
    if not turns_of_assistant:
        raise Unusable("no turn of the assistant, so there is no answer")
    if all(turn.get("weight") == 0 for turn in turns_of_assistant):
        raise Unusable("every turn of the assistant has weight 0, so there is no answer")
    return messages


def _read_turn(turn: object, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise Unusable(f"{where} is not an object but {_kind(turn)}")
    if "role" in turn:
        role, content = turn["role"], turn.get("content")
        known: tuple[str, ...] = _ROLES
    elif "from" in turn:
        role, content = turn["from"], turn.get("value")
        known = tuple(_SHAREGPT_ROLES)
    else:
        raise Unusable(f"{where} has neither 'role' nor 'from'; its keys are {', '.join(map(repr, turn)) or 'none'}")
    if role not in known:
        raise Unusable(f"{where} has the unknown role {role!r} (known: {', '.join(known)})")
    message = {name: value for name, value in turn.items() if value is not None and name not in ("from", "value")}
    message["role"] = _SHAREGPT_ROLES[role] if "role" not in turn else role
    if message.get("weight", 1) not in (0, 1):
        raise Unusable(f"{where}: weight is 0 or 1, not {message['weight']!r}")
    calls = message.get("tool_calls") if message["role"] == "assistant" else None
    if calls:
        message["tool_calls"] = _read_tool_calls(calls, where)
    message["content"] = "" if content is None and calls else _text(content, f"{where}: content")
    if message["role"] == "assistant" and not calls and not message["content"].strip():
        raise Unusable(f"{where}: the assistant says nothing")
    return message


def _read_tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unusable(f"{where}: tool_calls is not a list of objects")
    read = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable(f"{where}: a tool call has no name")
        if isinstance(function.get("arguments"), str):
            function = {**function, "arguments": _json(function["arguments"], f"{where}: a tool call's arguments")}
        read.append({**call, "function": function} if "function" in call else function)
    return read


def _read_tools(tools: object) -> tuple[dict[str, Any], ...]:
    # Tables cannot hold a list of unlike schemas, so there it is often a string.
    if isinstance(tools, str):
        tools = _json(tools, "tools") if tools.strip() else []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Unusable("tools is not a list of objects")
    if not all(isinstance(tool.get("function", tool), dict) for tool in tools):
        raise Unusable("tools has a function that is not an object")
    return tuple(tools)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Unusable(f"{where} are no JSON ({error})") from None


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if part is not None)
        raise Unusable(f"{where} has a part that is not text")
    raise Unusable(f"{where} is not text but {_kind(value)}")


def _kind(value: object) -> str:
    return _JSON_WORDS.get(type(value), "a number")
