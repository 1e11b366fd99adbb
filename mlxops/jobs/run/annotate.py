"""What a person says about runs afterwards: tags and a note."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from mlxops import registry, texts
from mlxops.config import NoteConfig, TagConfig
from mlxops.errors import BadRequest
from mlxops.projects.invocation import Invocation
from mlxops.registry.opening import reading, writing
from mlxops.registry.runs import find_runs

_STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class TaggedRun:
    """A run and the tags that it has now."""

    run: str
    tags: list[str]


@dataclass(frozen=True, kw_only=True)
class NotedRun:
    """A run and the note that it has now."""

    run: str
    note: str | None


def tag(invocation: Invocation, config: TagConfig) -> list[TaggedRun]:
    """Add tags to runs and take others away; returns each with those it has. Without either nothing is written."""
    names = [name.strip() for name in config.name.split(",") if name.strip()]
    if not names:
        raise BadRequest(
            f"run.tag takes the name of a run, not {config.name!r}", hint="`inv run.tag latest --add good`"
        )
    if not (config.add or config.remove):
        with reading(invocation.project.registry_path) as db:
            return [TaggedRun(run=run["name"], tags=run["tags"]) for run in find_runs(db, names)]
    with writing(invocation.project.registry_path) as db:
        return [
            TaggedRun(run=run["name"], tags=registry.change_tags(db, run["id"], add=config.add, remove=config.remove))
            for run in find_runs(db, names)
        ]


def note(invocation: Invocation, config: NoteConfig) -> NotedRun:
    """Give a run a note, or none at all; returns the run with it. Without a text nothing is written.

    Raises `BadRequest` for a text that is empty or cannot be stored.
    """
    if config.remove and config.text is not None:
        raise BadRequest("--text writes a note and --remove takes it away", hint="give one of the two")
    if config.text is None and not config.remove:
        with reading(invocation.project.registry_path) as db:
            run = registry.find_run(db, config.name)
        return NotedRun(run=run["name"], note=run["note"])
    text = None if config.text is None else _text(config.text)
    with writing(invocation.project.registry_path) as db:
        run = registry.find_run(db, config.name)
        registry.update_run(db, run["id"], note=text)
    return NotedRun(run=run["name"], note=text)


def _text(typed: str) -> str:
    """The note that was typed, or all of standard input for `-`."""
    read = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if typed.strip() == _STANDARD_INPUT else typed
    text = texts.check_text(read.replace("\r\n", "\n").strip("\n"), "the note")
    if not text.strip():
        raise BadRequest("the note is empty", hint="`--remove` takes a note away")
    return text
