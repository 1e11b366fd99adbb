"""The JSON that OpenAI's API answers with: errors, models, whole answers and pieces of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]
Kind = Literal["chat", "text"]
FinishReason = Literal["stop", "length", "tool_calls"]


class ApiError(Exception):
    """What a client is told instead of an answer, with its HTTP status; `param` is the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def to_json(self) -> JsonObject:
        """The body of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def internal_error() -> ApiError:
    """What a client is told of something that nobody foresaw."""
    return ApiError(500, "this is a bug in mlxops; the server's log says more", code="internal_error")


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A name that a request may give, and when that model was made, in seconds since 1970."""

    id: str
    created: int

    def to_json(self) -> JsonObject:
        """The model as `/v1/models` lists it."""
        return {"id": self.id, "object": "model", "created": self.created, "owned_by": "mlxops"}


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call of a tool, its arguments as JSON."""

    id: str
    name: str
    arguments: str

    def to_json(self) -> JsonObject:
        """The call as a message has it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class TokenLogprob(Protocol):
    """A token's text and its log-probability, and the likeliest tokens in its place."""

    @property
    def token(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def others(self) -> Sequence[TokenLogprob]: ...


@dataclass(frozen=True, kw_only=True)
class Started:
    """The model has read the prompt; `model` is the whole name of the one that answers."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of an answer: words, a thought, or calls of tools; `logprobs` of its tokens where they are asked for."""

    text: str = ""
    thought: str = ""
    calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An answer is complete: why it ended, and its tokens."""

    reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    tokens: int

    def usage(self) -> JsonObject:
        """The counts as a client reads them."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(kw_only=True)
class Reply:
    """The JSON of one answer, whole or in pieces. `id`, `created` and `model` are the same in all of them."""

    kind: Kind
    id: str
    created: int
    model: str
    _calls: int = field(default=0, init=False)
    _length: int = field(default=0, init=False)
    _is_begun: bool = field(default=False, init=False)

    def whole(self, deltas: Sequence[Delta], finished: Finished) -> JsonObject:
        """The answer in one piece."""
        text = "".join(each.text for each in deltas)
        calls = [call.to_json() for each in deltas for call in each.calls]
        choice: JsonObject = {"index": 0, "finish_reason": finished.reason, "logprobs": self._logprobs(deltas)}
        if self.kind == "text":
            choice["text"] = text
        else:
            message: JsonObject = {"role": "assistant", "content": text or (None if calls else "")}
            if thought := "".join(each.thought for each in deltas).strip():
                message["reasoning_content"] = thought
            if calls:
                message["tool_calls"] = calls
            choice["message"] = message
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": [choice], "usage": finished.usage()}

    def piece(self, delta: Delta) -> JsonObject:
        """A chunk of a stream; the first one says whose words these are."""
        if self.kind == "text":
            return self._chunk({"text": delta.text, "logprobs": self._logprobs([delta])}, None)
        content: JsonObject = {} if self._is_begun else {"role": "assistant", "content": ""}
        self._is_begun = True
        if delta.text:
            content["content"] = delta.text
        if delta.thought:
            content["reasoning_content"] = delta.thought
        if delta.calls:
            content["tool_calls"] = [{"index": self._number(), **call.to_json()} for call in delta.calls]
        return self._chunk({"delta": content, "logprobs": self._logprobs([delta])}, None)

    def end(self, reason: FinishReason) -> JsonObject:
        """The last chunk of a stream that has a choice."""
        return self._chunk({"text": ""} if self.kind == "text" else {"delta": {}}, reason)

    def counts(self, finished: Finished) -> JsonObject:
        """The chunk behind it, for who asked for the counts."""
        return {**self._head(self._chunk_name), "choices": [], "usage": finished.usage()}

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, name: str) -> JsonObject:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _chunk(self, content: Mapping[str, Any], reason: FinishReason | None) -> JsonObject:
        choice = {"index": 0, "logprobs": None, **content, "finish_reason": reason}
        return {**self._head(self._chunk_name), "choices": [choice]}

    def _logprobs(self, deltas: Sequence[Delta]) -> JsonObject | None:
        if all(delta.logprobs is None for delta in deltas):
            return None
        tokens = [each for delta in deltas for each in delta.logprobs or ()]
        if self.kind == "chat":
            return {"content": [_described(each) for each in tokens], "refusal": None}
        offsets = []
        for each in tokens:
            offsets.append(self._length)
            self._length += len(each.token)
        return {
            "tokens": [each.token for each in tokens],
            "token_logprobs": [each.logprob for each in tokens],
            "top_logprobs": [{other.token: other.logprob for other in each.others} for each in tokens],
            "text_offset": offsets,
        }

    def _number(self) -> int:
        self._calls += 1
        return self._calls - 1


def _described(each: TokenLogprob) -> JsonObject:
    others = [{"token": other.token, "logprob": other.logprob, "bytes": None} for other in each.others]
    return {"token": each.token, "logprob": each.logprob, "bytes": None, "top_logprobs": others}
