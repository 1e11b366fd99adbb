"""A run's stored settings as those of a command that resumes it, with the changes that a run may have."""

from __future__ import annotations

from typing import Any

from mlxops import registry
from mlxops.config import LoraConfig, ResumeConfig
from mlxops.errors import BadRequest
from mlxops.jobs import commands
from mlxops.options import options_of
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import FoundRun, JsonObject
from mlxops.registry.opening import reading
from mlxops.training.fingerprint import complete

CHANGEABLE = tuple(option.name for option in options_of(LoraConfig) if option.role in ("keeping", "target"))
"""What may change from one attempt of a run to the next."""

INHERITED = tuple(
    option.name
    for option in options_of(LoraConfig)
    if option.role in ("weights", "keeping", "target") and option.name not in ("trust_remote_code", "allow_sleep")
)
"""What a branch takes from the run that it leaves."""

_OF_THE_COMMAND = ("samples", "detach", "preview", "json")
_GIVEN_AGAIN = ("trust_remote_code", "allow_sleep")


def settings_of(invocation: Invocation, config: ResumeConfig) -> LoraConfig:
    """The settings that resume a run: those it stored, save what the command changes and what is given each time.

    Raises `NotFound` where there is no such run, and `BadRequest` for one that was imported.
    """
    project = invocation.project
    with reading(project.registry_path) as db:
        run = registry.find_run(db, config.run)
    if run["imported_from"] is not None:
        raise BadRequest(
            f"the run {run['name']!r} was imported, and its folder is another program's",
            hint=f"`inv run.import {run['imported_from']}` shows the command that continues it in a run of its own",
        )
    stored = paths_here(project, run, complete(run["config"]))
    values: dict[str, Any] = {
        each.name: stored[each.name]
        for each in options_of(LoraConfig)
        if each.role != "command" and each.name in stored and each.name not in _GIVEN_AGAIN
    }
    # given at a resumption, a note and tags replace those that the run has
    values |= {"name": run["name"], "adapter_path": None, "note": None, "tag": []}
    if values["epochs"] is None:
        values["iters"] = run["target_iterations"]
    changes = {name: getattr(config, name) for name in (*CHANGEABLE, *_OF_THE_COMMAND)}
    changes = {name: value for name, value in changes.items() if value is not None}
    if "iters" in changes:
        values["epochs"] = None
    return LoraConfig(**{**values, **changes})


def paths_here(project: Project, run: FoundRun, config: JsonObject) -> JsonObject:
    """Stored settings whose model and data are as typed then, unless that means something else by now, or from here."""
    changed = {
        name: commands.path_of(project, project.from_root(place))
        for name, place in (("model", run["model"]), ("data", run["data"]))
        if config[name] is None or project.resolve(config[name]) != project.from_root(place)
    }
    return {**config, **changed}
