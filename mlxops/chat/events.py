"""What happens in a chat, for whoever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some text of the answer that is being made."""

    text: str
    is_thought: bool = False


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer is complete."""

    prompt: str
    answer: str
    thought: str
    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    first_token_seconds: float
    seconds: float
    tokens_per_second: float | None
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that could not be done, and what helps."""

    message: str
    hint: str | None = None
    exit_code: int = 2


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values, to be shown as a table."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """The base model's answer, or then the adapter's, begins."""

    which: Literal["base", "adapter"]
    name: str


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two answers to one message."""

    prompt: str
    base: Answered
    adapter: Answered


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """The next message begins as this text, to be changed."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The chat is over."""


Event = Piece | Answered | Note | Problem | Facts | Comparing | Compared | Prefill | Ended
