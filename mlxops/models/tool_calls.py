"""Calls of tools in the words of a model, told apart as they come; mlx-lm knows how each family writes them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlx_lm.generate import TextStateMachine
from mlx_lm.tokenizer_utils import _infer_tool_parser

from mlxops.errors import BadRequest
from mlxops.foreign import foreign_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a tool, its arguments as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class CallFormat:
    """How a model writes calls: what opens and closes one, and mlx-lm's parser of what is between."""

    start: str
    end: str
    parser: Callable[[str, Any], Any]

    def read(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[Call]:
        """The calls in a text without its marks. Raises `BadRequest` for what is no call."""
        with foreign_code(lambda words, _: BadRequest(f"no call of a tool: {words}")):
            found = self.parser(text, list(tools))
            return [
                Call(name=str(each["name"]), arguments=json.dumps(each.get("arguments") or {}, ensure_ascii=False))
                for each in (found if isinstance(found, list) else [found])
            ]


def format_of(tokenizer: PreTrainedTokenizerBase) -> CallFormat | None:
    """How the model of a tokenizer writes calls, None where mlx-lm knows no way for its chat template."""
    name = tokenizer.init_kwargs.get("tool_parser_type") or _infer_tool_parser(tokenizer)
    if not isinstance(name, str) or not name.isidentifier():
        return None
    try:
        module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    except ImportError:
        return None
    return CallFormat(start=module.tool_call_start, end=module.tool_call_end, parser=module.parse_tool_call)


@dataclass(kw_only=True)
class WordSplitter:
    """Divides the words of an answer into text and calls, and ends them at the first text of `stop`.

    A mark or a stop may come in several pieces; neither is in what comes out. What looks like a call and is none is
    text.
    """

    stop: Sequence[str] = ()
    calls: CallFormat | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    is_stopped: bool = field(default=False, init=False)
    _call: str = field(default="", init=False)

    def __post_init__(self) -> None:
        marks: dict[str, list[tuple[str, str]]] = {"text": [(word, _STOPPED) for word in self.stop], _STOPPED: []}
        if self.calls is not None:
            marks["text"].append((self.calls.start, "call"))
            marks["call"] = [(self.calls.end, "text")] if self.calls.end else []
        self._is_plain = not any(marks.values())
        self._state = TextStateMachine(marks).make_state("text")

    def feed(self, text: str) -> Iterator[str | Call]:
        """What is certain once this text has come."""
        if self.is_stopped:
            return
        if self._is_plain:
            yield text
            return
        self._state, parts = TextStateMachine.split(self._state, text)
        for place, (name, part) in enumerate(parts):
            if name == "text" and part:
                yield part
            elif name == "call":
                self._call += part
                if place + 1 < len(parts):
                    yield from self._take_call(is_closed=True)
            elif name == _STOPPED:
                self.is_stopped = True
                return

    def finish(self) -> Iterator[str | Call]:
        """What is left, once the answer has ended."""
        if self.is_stopped or self._is_plain:
            return
        self._state, rest, name = TextStateMachine.flush(self._state)
        if name == "call":
            self._call += rest
            yield from self._take_call(is_closed=False)
        elif rest:
            yield rest

    def _take_call(self, *, is_closed: bool) -> Iterator[str | Call]:
        text, self._call = self._call, ""
        calls = self.calls
        if calls is None:
            return
        try:
            yield from calls.read(text, self.tools)
        except BadRequest:
            yield f"{calls.start}{text}{calls.end if is_closed else ''}"
