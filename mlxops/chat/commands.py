"""What a person types in a chat: a message, or a command with its argument."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlxops.errors import BadRequest
from mlxops.likeness import nearest


@dataclass(frozen=True, kw_only=True)
class CommandInfo:
    """A command, what it takes and what it does."""

    name: str
    takes: str
    help: str

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.takes}".strip()


COMMANDS = (
    CommandInfo(name="help", takes="", help="show the commands"),
    CommandInfo(name="reset", takes="", help="forget the conversation; the system prompt stays"),
    CommandInfo(name="system", takes="[TEXT|none]", help="show the system prompt, or start again with another one"),
    CommandInfo(name="save", takes="FILE", help="write the conversation to a JSON file"),
    CommandInfo(name="load", takes="FILE", help="continue a saved conversation"),
    CommandInfo(name="undo", takes="", help="take the last message and its answer back"),
    CommandInfo(name="retry", takes="", help="answer the last message again, with another seed"),
    CommandInfo(name="edit", takes="[TEXT]", help="replace the last message and answer the new one"),
    CommandInfo(name="stats", takes="", help="show tokens, speed and memory"),
    CommandInfo(name="set", takes="[NAME [VALUE]]", help="show the settings, or change one"),
    CommandInfo(name="adapter", takes="[RUN[:ITERATION]|PATH|none]", help="show, change or remove the adapter"),
    CommandInfo(name="compare", takes="[TEXT]", help="ask the base model and the adapter, side by side"),
    CommandInfo(name="good", takes="[NOTE]", help="record the last answer as a good one"),
    CommandInfo(name="bad", takes="[NOTE]", help="record the last answer as a bad one"),
    CommandInfo(name="exit", takes="", help="end the chat; Ctrl-D does the same"),
)

_OTHER_NAMES = {
    "quit": "exit",
    "q": "exit",
    "bye": "exit",
    "clear": "reset",
    "new": "reset",
    "h": "help",
    "?": "help",
    "regenerate": "retry",
    "again": "retry",
    "statistics": "stats",
    "settings": "set",
    "lora": "adapter",
}

_COMMAND = re.compile(r"/(\S*)(?:\s+(.*))?$", re.DOTALL)
_QUOTES = '"""'


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command and its argument, empty where none was typed."""

    name: str
    argument: str = ""


def parse(text: str) -> Command | str:
    """The command that a text is, or the message. `//` at the beginning is a message that begins with one slash.

    Raises `BadRequest` for a command that there is not.
    """
    if text.startswith("//"):
        return text[1:]
    match = _COMMAND.match(text.strip()) if text.lstrip().startswith("/") else None
    if match is None:
        return text
    typed = match[1].lower()
    names = [each.name for each in COMMANDS]
    name = _OTHER_NAMES.get(typed, typed)
    if name not in names:
        near = nearest(typed, [*names, *_OTHER_NAMES])
        hint = f"did you mean /{_OTHER_NAMES.get(near, near)}?" if near else "/help lists the commands"
        raise BadRequest(f"there is no command /{match[1]}", hint=f"{hint}; // begins a message with a slash")
    return Command(name=name, argument=(match[2] or "").strip())


def messages_in(lines: Iterable[str]) -> Iterator[str]:
    """The messages in lines: each is one, but for a line that ends with a backslash, and lines between triple quotes.

    >>> list(messages_in(["a", "b\\\\", "c", "", '\"""', "d", "", "e", '\"""']))
    ['a', 'b\\nc', 'd\\n\\ne']
    """
    begun: list[str] = []
    is_quoted = False
    for line in lines:
        line = line.rstrip("\r\n")
        if is_quoted:
            if line.strip() != _QUOTES:
                begun.append(line)
                continue
            is_quoted = False
        elif not begun and line.strip() == _QUOTES:
            is_quoted = True
            continue
        elif line.endswith("\\"):
            begun.append(line[:-1])
            continue
        else:
            begun.append(line)
        if text := "\n".join(begun).strip():
            yield text
        begun = []
    if text := "\n".join(begun).strip():
        yield text


def is_complete(text: str) -> bool:
    """Whether a text typed so far is a whole message, and Enter sends it."""
    lines = text.split("\n")
    if lines[0].strip() == _QUOTES:
        return len(lines) > 1 and lines[-1].strip() == _QUOTES
    return not lines[-1].endswith("\\")
