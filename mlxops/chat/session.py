"""The turns of a conversation, which can be taken back, written to a file and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from mlxops import files
from mlxops.errors import BadRequest, NotFound, Refused


class Message(TypedDict):
    """One message as a chat template takes it."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a person said and what the model answered; its thought is kept apart and is not told to it again."""

    question: str
    answer: str
    thought: str = ""


@dataclass(kw_only=True)
class Session:
    """A conversation. `first` is the oldest turn that still fits into the model's context."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    first: int = 0

    def messages(self, question: str | None = None) -> list[Message]:
        """What the model is told: the system prompt, the turns that fit, and a new question."""
        found: list[Message] = []
        if self.system:
            found.append(Message(role="system", content=self.system))
        for turn in self.turns[self.first :]:
            found.append(Message(role="user", content=turn.question))
            found.append(Message(role="assistant", content=turn.answer))
        if question is not None:
            found.append(Message(role="user", content=question))
        return found

    def undo(self) -> Turn:
        """Take the last turn back. Raises `BadRequest` where there is none."""
        if not self.turns:
            raise BadRequest("there is no turn to take back")
        turn = self.turns.pop()
        self.first = min(self.first, len(self.turns))
        return turn

    def reset(self) -> None:
        """Take all turns back; the system prompt stays."""
        self.turns.clear()
        self.first = 0

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the conversation to a file, with what is known about it; a saved conversation is replaced.

        Raises `Refused` for a file that is something else.
        """
        if path.exists() and not _is_saved(path):
            raise Refused(f"{str(path)!r} is no saved conversation", hint="/save takes another name")
        messages: list[dict[str, str]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.question})
            thought = {"reasoning_content": turn.thought} if turn.thought else {}
            messages.append({"role": "assistant", "content": turn.answer, **thought})
        try:
            files.write_text(path, json.dumps({**about, "messages": messages}, ensure_ascii=False, indent=2) + "\n")
        except OSError as error:
            raise BadRequest(f"{str(path)!r} cannot be written: {error.strerror}") from error

    def load(self, path: Path) -> None:
        """Resume a saved conversation, or with any JSON that has `messages`.

        Raises `NotFound`, or `BadRequest` for a file without a conversation of alternating turns.
        """
        system, turns = _read(path)
        self.system, self.turns, self.first = system, turns, 0


def _is_saved(path: Path) -> bool:
    try:
        _read(path)
    except BadRequest:
        return False
    return True


def _read(path: Path) -> tuple[str | None, list[Turn]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        messages = [(str(each["role"]), str(each["content"]), each) for each in content["messages"]]
    except FileNotFoundError:
        raise NotFound(f"no file {str(path)!r}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{str(path)!r} holds no conversation: {str(error) or type(error).__name__}") from error
    system = messages.pop(0)[1] if messages and messages[0][0] == "system" else None
    roles = [role for role, _, _ in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadRequest(f"{str(path)!r} holds no conversation of a user and an assistant by turns")
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return system, [
        Turn(question=asked, answer=said, thought=str(each.get("reasoning_content") or ""))
        for (_, asked, _), (_, said, each) in pairs
    ]
