"""A request as a client sends it, read and checked: what it asks for, or which of its fields is wrong.

What would change an answer and cannot be done is refused; what changes nothing here is ignored. No field is a path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxops.serving.messages import read_messages
from mlxops.serving.shapes import ApiError, JsonObject, Kind

MOST_BYTES = 1_000_000
"""The longest body that is read."""

_MOST_STOPS = 16
_MOST_LOGPROBS = 20
_IGNORED = {
    *("user", "store", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "reasoning_effort", "verbosity"),
}
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "functions": (),
    "function_call": (),
}
"""Fields that cannot be had, with the values that ask for nothing."""


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What counts where a request does not say."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for an answer. `seed` None asks for another answer each time; `schema` for JSON that is valid by it."""

    kind: Kind
    model: str | None
    messages: Sequence[JsonObject]
    prompt: str | Sequence[int]
    tools: Sequence[JsonObject]
    template_config: JsonObject
    """What the chat template is told besides."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: Sequence[str]
    schema: Any
    stream: bool
    include_usage: bool
    logprobs: int | None
    """How many other tokens are told with each, None for no log-probabilities."""


def read(body: bytes, kind: Kind, defaults: Defaults) -> Request:
    """The request in a body. Raises `ApiError` with the field that is wrong."""
    fields = _Fields(parse(body))
    stream = fields.boolean("stream")
    options = fields.take("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise _wrong("stream_options", "takes an object, with 'stream': true")
    max_tokens = fields.whole("max_tokens", defaults.max_tokens, 1, 1 << 31)
    request = Request(
        kind=kind,
        model=fields.text("model"),
        messages=read_messages(fields.take("messages")) if kind == "chat" else (),
        prompt="" if kind == "chat" else _prompt(fields.take("prompt")),
        tools=_tools(fields.take("tools"), fields.take("tool_choice")) if kind == "chat" else (),
        template_config=_template_config(fields.take("chat_template_kwargs")) if kind == "chat" else {},
        max_tokens=fields.whole("max_completion_tokens", max_tokens, 1, 1 << 31) if kind == "chat" else max_tokens,
        temperature=fields.number("temperature", defaults.temperature, 0, 100),
        top_p=fields.number("top_p", defaults.top_p, 0, 1),
        top_k=fields.whole("top_k", defaults.top_k, 0, 1 << 31),
        min_p=fields.number("min_p", defaults.min_p, 0, 1),
        repetition_penalty=fields.number("repetition_penalty", defaults.repetition_penalty, 0.01, 100),
        presence_penalty=fields.number("presence_penalty", 0.0, -2, 2),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2, 2),
        logit_bias=_bias(fields.take("logit_bias")),
        seed=fields.whole("seed", None, 0, (1 << 63) - 1),
        stop=_stop(fields.take("stop")),
        schema=_schema(fields.take("response_format")),
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        logprobs=_logprobs(fields, kind),
    )
    fields.check_rest()
    if request.schema is not None and request.tools:
        raise _wrong("response_format", "cannot be had together with tools")
    return request


def parse(body: bytes) -> JsonObject:
    """The JSON object in a body. Raises `ApiError`."""
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        # an escaped half of a character is no text that a tokenizer takes
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the body is no JSON: {said}", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_json")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


class _Fields:
    """The fields of a request, each taken once; null is as good as absent."""

    def __init__(self, content: JsonObject) -> None:
        self._left = dict(content)

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, "takes a text")
        return value

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if value not in (None, True, False) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            raise _wrong(name, "takes true or false")
        return bool(value)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise _wrong(name, f"takes a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, name: str, default: Any, least: int, most: int) -> Any:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _wrong(name, f"takes a whole number from {least} to {most}")
        return value

    def check_rest(self) -> None:
        for name, value in self._left.items():
            if name in _IGNORED or value is None:
                continue
            if name not in _NEUTRAL:
                raise ApiError(400, f"unknown field {name!r}", code="unknown_parameter", param=name)
            if not any(type(value) is type(each) and value == each for each in _NEUTRAL[name]):
                raise _unsupported(name)


def _prompt(value: Any) -> str | Sequence[int]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(each) is int and 0 <= each < 1 << 31 for each in value):
        return tuple(value)
    raise _wrong("prompt", "takes one text, or the token ids of one")


def _tools(tools: Any, choice: Any) -> Sequence[JsonObject]:
    if choice not in (None, "auto", "none"):
        raise _wrong("tool_choice", "takes 'auto' or 'none': no model can be made to call a tool", "unsupported_value")
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise _wrong("tools", "takes a list")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"tools[{number}]", "takes a function with a name")
    return () if choice == "none" else tools


def _template_config(value: Any) -> JsonObject:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(each, (bool, int, float, str)) for each in value.values()):
        raise _wrong("chat_template_kwargs", "takes an object of texts, numbers, true and false")
    return value


def _bias(value: Any) -> Mapping[int, float]:
    if value is None:
        return {}
    try:
        found = {int(token): float(bias) for token, bias in value.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        found = {-1: 0.0}
    if any(token < 0 or not -100 <= bias <= 100 for token, bias in found.items()):
        raise _wrong("logit_bias", "takes token ids, each with a number from -100 to 100")
    return found


def _stop(value: Any) -> Sequence[str]:
    found = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise _wrong("stop", "takes a text or a list of texts, none of them empty")
    if len(found) > _MOST_STOPS:
        raise _wrong("stop", f"takes at most {_MOST_STOPS} texts")
    return tuple(found)


def _logprobs(fields: _Fields, kind: Kind) -> int | None:
    if kind == "text":
        found: int | None = fields.whole("logprobs", None, 0, _MOST_LOGPROBS)
        return found
    is_asked, others = fields.boolean("logprobs"), fields.whole("top_logprobs", None, 0, _MOST_LOGPROBS)
    if others and not is_asked:
        raise _wrong("top_logprobs", "takes 'logprobs': true beside it")
    return (others or 0) if is_asked else None


def _schema(value: Any) -> Any:
    """The JSON schema of a `response_format`, None for plain text."""
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = value.get("json_schema") if kind == "json_schema" else None
    if isinstance(described, dict) and isinstance(described.get("schema"), dict):
        return described["schema"]
    raise _wrong("response_format", "takes the type 'text', 'json_object', or 'json_schema' with a schema")


def _wrong(name: str, words: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, f"{name!r} {words}", code=code, param=name)


def _unsupported(name: str) -> ApiError:
    return ApiError(400, f"{name!r} cannot be had from this server", code="unsupported_parameter", param=name)


Reader = Callable[[bytes], Request]
