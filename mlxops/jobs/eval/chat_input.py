"""What a person types in a chat: the one message of a command, what was typed before, and words to complete."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxops import registry
from mlxops.chat.commands import COMMANDS
from mlxops.chat.events import Event, Problem
from mlxops.config import ChatConfig
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.options import options_of
from mlxops.projects.project import Project

_SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def message_of(prompt: str | None) -> str | None:
    """The one message to answer: what was given, or all of standard input for `-`; None where none was given.

    Bytes of standard input that are no UTF-8 become U+FFFD. Raises `BadRequest` for an empty message.
    """
    if prompt is None:
        return None
    message = sys.stdin.buffer.read().decode("utf-8", "replace") if prompt == "-" else prompt
    if not message.strip():
        raise BadRequest("the message is empty", hint="`-p TEXT` says it, and `-p -` all of standard input")
    return message


def check(last: Event | None) -> None:
    """Raise what went wrong with the one answer."""
    if isinstance(last, Problem):
        kind = {1: Failed, 3: Refused}.get(last.exit_code, BadRequest)
        raise kind(last.message, hint=last.hint)


def history_file(project: Project) -> Path | None:
    """The file of what was typed before in this project, None where it cannot be kept."""
    file = project.root / ".mlxops" / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError:
        return None
    return file


def completions(text: str, settings: Sequence[tuple[str, str]], project: Project) -> list[tuple[str, str]]:
    """The words that may come at the end of what was typed so far, each with what it is."""
    if not text.startswith("/") or "\n" in text:
        return []
    name, blank, rest = text[1:].partition(" ")
    if not blank:
        return [(f"/{each.name}", each.help) for each in COMMANDS]
    if " " in rest:
        return []
    if name == "set":
        return list(settings)
    return [("none", "the base model"), *_runs(project)] if name == "adapter" else []


def parse_setting(name: str, text: str) -> Any:
    """The value of a setting that was typed. Raises `BadRequest` that says what it takes."""
    option = next(each for each in options_of(ChatConfig) if each.name == name)
    value: Any = text
    if option.kind is bool:
        value = _SWITCHES.get(text.lower(), text)
    elif option.kind in (int, float):
        with suppress(ValueError):
            value = option.kind(text)
    return option.check(value, name)


def as_text(value: Any) -> str:
    """A setting as it is typed."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _runs(project: Project) -> list[tuple[str, str]]:
    if not project.registry_path.is_file():
        return []
    with registry.open_read_only(project.registry_path) as db:
        return [(str(row["name"]), str(row["model"])) for row in registry.list_runs(db)]
