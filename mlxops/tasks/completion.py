"""What Tab completes where a value is typed: choices, runs, checkpoints, tags, metrics, models, saved queries.

Invoke completes tasks and options itself and knows nothing of values. What has no candidates is left to the shell,
which completes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from invoke import Collection, Context
from invoke.config import Config

from mlxops import hints
from mlxops.errors import MlxopsError
from mlxops.options import Option
from mlxops.projects import project
from mlxops.projects.invocation import Invocation
from mlxops.tasks import house, spelling

Source = Callable[[Invocation, str], Iterable[str]]


def asked_for(argv: Sequence[str]) -> list[str] | None:
    """The words of the line that is being typed, without the program, where a shell asks to complete the last one.

    >>> asked_for(["inv", "--complete", "--", "inv", "run.show", "he"]), asked_for(["inv", "runs"])
    (['run.show', 'he'], None)
    """
    is_asked = list(argv[1:3]) == ["--complete", "--"] and len(argv) > 4
    return list(argv[4:]) if is_asked else None


def values(words: Sequence[str], namespace: Collection) -> list[str] | None:
    """The words that the last one may become where it is a value, none where only the shell knows any.

    None where it is no value of one of our tasks.
    """
    found = _option_of(words, namespace)
    if found is None:
        return None
    task, option, before, typed = found
    source = _source(task, option)
    try:
        candidates = source(_here(), typed) if source else option.choices
    except (MlxopsError, OSError):
        candidates = ()
    if option.kind is list:
        done, comma, typed = typed.rpartition(",")
        before += done + comma
    return [before + each for each in candidates if each.startswith(typed)]


def _option_of(words: Sequence[str], namespace: Collection) -> tuple[str, Option, str, str] | None:
    """The task and the option whose value the last word is, what stands before the value in it, and the value."""
    places = [place for place, word in enumerate(words[:-1]) if word in namespace.task_names]
    if not places:
        return None
    name = words[places[0]]
    options: Sequence[Option] = getattr(namespace[name], "options", ())
    rest, typed = words[places[0] + 1 : -1], words[-1]
    path = _full_name(name, namespace)
    flags = spelling.flags_of(namespace[name], name)
    flag, equals, value = typed.partition("=")
    if equals and flag in flags:
        return path, flags[flag], f"{flag}=", value
    if typed.startswith("-"):
        return None
    if rest and (option := flags.get(rest[-1])) and option.kind is not bool:
        return path, option, "", typed
    bare = [
        word
        for place, word in enumerate(rest)
        if not word.startswith("-") and not (place and _takes_value(flags.get(rest[place - 1])))
    ]
    positional = [option for option in options if option.positional]
    if hints.program() != "inv":
        positional += spelling.positionals_of(name, options)
    if len(bare) >= len(positional) or path == "help":
        return None
    return path, positional[len(bare)], "", typed


def _takes_value(option: Option | None) -> bool:
    return option is not None and option.kind is not bool


def _full_name(name: str, namespace: Collection) -> str:
    """The name of a task within its collection, of whichever of its names."""
    task = namespace[name]
    return next((each for each in namespace.task_names if "." in each and namespace[each] is task), name)


def _here() -> Invocation:
    config = Config()
    config.set_project_location(project.find(Path.cwd()).root)
    config.load_project()
    return house.invocation(Context(config))


def _runs(here: Invocation, typed: str) -> list[str]:
    from mlxops import registry

    if not here.project.registry_path.is_file():
        return []
    name, colon, _ = typed.rpartition(",")[2].rpartition(":")
    with registry.open_read_only(here.project.registry_path) as db:
        names = [run["name"] for run in registry.overview(db)]
        if not colon or name not in (*names, "latest"):
            return [*names, "latest"]
        rows = registry.checkpoints_of(db, registry.find_run(db, name)["id"])
    places = ["best", "last", *(str(row["iteration"]) for row in rows if row["status"] == "whole")]
    return [f"{name}:{place}" for place in places]


def _tags(here: Invocation, typed: str) -> list[str]:
    from mlxops import registry

    if not here.project.registry_path.is_file():
        return []
    with registry.open_read_only(here.project.registry_path) as db:
        return registry.all_tags(db)


def _models(here: Invocation, typed: str) -> list[str]:
    from mlxops.models.folders import list_models

    return list_models(here.project.models_folder)


def _models_and_runs(here: Invocation, typed: str) -> list[str]:
    return [*_models(here, typed), *_runs(here, typed)]


def _metrics(here: Invocation, typed: str) -> list[str]:
    from importlib.metadata import entry_points

    from mlxops.config import TestConfig

    return [*TestConfig().metrics, *sorted({each.name for each in entry_points(group="mlxops.metrics")})]


def _columns(here: Invocation, typed: str) -> list[str]:
    from mlxops.registry.views import RunSummaryView

    return list(RunSummaryView.__annotations__)


def _cleanable(here: Invocation, typed: str) -> Iterable[str]:
    from mlxops.jobs.project.clean import NAMES

    return NAMES


def _queries(here: Invocation, typed: str) -> list[str]:
    from mlxops.registry.sql.saved import saved_queries

    return [".queries", ".schema", *(f"@{query.name}" for query in saved_queries())]


_SOURCES: dict[str, Source] = {
    "run": _runs,
    "runs": _runs,
    "branch_from": _runs,
    "model": _models,
    "models": _models_and_runs,
    "draft_model": _models,
    "metrics": _metrics,
    "tag": _tags,
    "run.tag.add": _tags,
    "run.tag.remove": _tags,
    "run.show.name": _runs,
    "run.note.name": _runs,
    "run.tag.name": _runs,
    "run.rename.name": _runs,
    "run.sql.text": _queries,
    "run.list.sort": _columns,
    "run.list.columns": _columns,
    "train.checkpoints.use": _runs,
    "train.lora.name": _runs,
    "train.finetune.name": _runs,
    "project.clean.what": _cleanable,
    "model.convert.source": _models,
    "model.fuse.source": _models_and_runs,
    "eval.serve.model": _models_and_runs,
}
"""What an option takes, by its name, or by its task's and its own where the name alone means several things."""


def _source(task: str, option: Option) -> Source | None:
    return _SOURCES.get(f"{task}.{option.name}") or _SOURCES.get(option.name)


def answer(argv: Sequence[str], namespace: Collection) -> None:
    """Print what completes the value that is being typed, and end; where it is none, Invoke answers."""
    words = asked_for(argv)
    found: Any = None if words is None else values(words, namespace)
    if found is not None:
        print(*found, sep="\n", end="\n" if found else "")
        raise SystemExit(0)
