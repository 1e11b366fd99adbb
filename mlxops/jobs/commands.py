"""The command that resumes what is there, or trains it once more: it can be typed as it stands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.options import Option, options_of
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import JsonObject, RunRow
from mlxops.training.fingerprint import complete
from mlxops.training.origin import Origin, origin_of

NO_SETTINGS = frozenset(each.name for each in options_of(LoraConfig) if each.role in ("command", "naming"))
"""What one command was asked to do, and where and under which name a run stands: no setting of the training."""

UNKNOWN = "unknown"
"""What stands for a model or data in the row of an imported run that does not tell it."""

DEFAULTS_OF_MLX_LM = {"mask_prompt": False}
"""What `mlx_lm.lora` takes for settings that are not given, where that is other than here."""

_SAID_FIRST = frozenset({"model", "data", "iters", "epochs"})
_FROM_MLX_LM = (
    "learning_rate", "batch_size", "max_seq_length", "seed", "optimizer", "mask_prompt", "grad_checkpoint",
    "grad_accumulation_steps", "steps_per_report", "steps_per_eval", "val_batches", "save_every",
)  # fmt: skip


def program(invocation: Invocation) -> str:
    """The program that was typed."""
    return next(iter(shlex.split(invocation.command or "")), "inv")


def going_on(
    invocation: Invocation, project: Project, run: ResumableRun, *, folder: str, target: int
) -> tuple[str, list[str]]:
    """The command that resumes a run in its folder up to a target, and what it needs besides.

    Everything that decides the weights is in the command, or in the recipe it names.
    """
    stored = complete(run.config)
    recipe, notes = _recipe(project, stored)
    model, data = (path_of(project, project.from_root(place)) for place in (run.model, run.data))
    words = ["--adapter-path", folder, "--model", model, "--data", data, "--iters", str(target)]
    words += ["--config", recipe] if recipe else []
    for option in options_of(LoraConfig):
        if option.name in NO_SETTINGS | _SAID_FIRST:
            continue
        # a recipe may say otherwise than the command line did
        if stored[option.name] != option.default or (recipe and option.role == "weights"):
            words += _typed(option, stored[option.name]) or []
    return shlex.join([program(invocation), "lora", *words]), notes


def adopting(
    invocation: Invocation,
    project: Project,
    said: JsonObject,
    *,
    path: str,
    target: int,
    shape: JsonObject | None = None,
    defaults: JsonObject | None = None,
) -> tuple[str, list[str]]:
    """The command that takes over an adapter of mlx_lm.lora, with the settings its `adapter_config.json` has.

    Settings of it, and of its `shape`, are named where the project's `defaults` are others, and the notes say what
    cannot be typed.
    """
    words, notes = ["--adopt", path], []
    for name in ("model", "data"):
        value = said.get(name)
        if not isinstance(value, str) or not value or not project.resolve(value).exists():
            notes.append(
                f"{name.upper()} stands for the {name}, which adapter_config.json does not name or is not here"
            )
            value = name.upper()
        words += [f"--{name}", value]
    words += ["--iters", str(target)]
    wanted = {name: said[name] for name in _FROM_MLX_LM if said.get(name) is not None} | dict(shape or {})
    for option in options_of(LoraConfig):
        if option.name not in wanted:
            continue
        try:
            value = option.check(wanted[option.name], option.name)
        except BadRequest as error:
            notes.append(f"adapter_config.json: {error.message}, so that is left out")
            continue
        usual = option.default if defaults is None else defaults[option.name]
        if value == usual or (not value and not usual):
            continue
        typed = _typed(option, value)
        if typed is None:
            notes.append(
                f"{option.name} of the adapter is {json.dumps(value)}, which cannot be typed: invoke.yaml has to say it"
            )
        words += typed or []
    if said.get("lr_schedule"):
        notes.append("adapter_config.json has an lr_schedule: `--lr-schedule` and a recipe (`--config`) take one")
    return shlex.join([program(invocation), "lora", *words]), notes


def again(project: Project, run: RunRow, defaults: JsonObject, program: str = "inv") -> str | None:
    """What to type to train a run again as a new one, in this project or another: what differs from `defaults`.

    The settings of a project's invoke.yaml are left aside. Settings that no option takes go in as a recipe, through
    bash's or zsh's `<(…)`. A branch begins at the same checkpoint, an adapter taken over is taken over again. None for
    an imported run whose model or data is not known.
    """
    config = dict(run["config"])
    if "imported" in config:
        if UNKNOWN in (run["model"], run["data"]):
            return None
        config = {**DEFAULTS_OF_MLX_LM, **config}
    else:
        config = complete(config)
    # as stored they are counted from the root, as typed then from the folder of that command
    config |= {
        name: path_of(project, project.from_root(place))
        for name, place in (("model", run["model"]), ("data", run["data"]))
        if place
    }
    words, recipe = _start(project, origin_of(config)), {}
    for option in options_of(LoraConfig):
        name = option.name
        if option.role is None or name in NO_SETTINGS or name not in config or _is_replaced(name, config):
            continue
        if config[name] == defaults.get(name) or config[name] is None:
            continue
        typed = _typed(option, config[name])
        if typed is None:
            recipe[name] = config[name]
        else:
            words += typed
    line = shlex.join([program, "lora", "--new", "--ignore-invoke-yaml", *words])
    return f"{line} --config <(printf %s {shlex.quote(json.dumps(recipe))})" if recipe else line


def _recipe(project: Project, config: JsonObject) -> tuple[str | None, list[str]]:
    """The recipe that a run was started with, and a note where it is needed and not there."""
    recipe = config.get("config")
    if recipe and project.resolve(recipe).is_file():
        return project.relative(project.resolve(recipe)), []
    needed = [
        option.name
        for option in options_of(LoraConfig)
        if (value := config.get(option.name, option.default)) != option.default
        and option.name not in NO_SETTINGS
        and value is not None
        and _typed(option, value) is None
    ]
    if not needed:
        return None, []
    where = f"the recipe {recipe!r} is gone" if recipe else "no recipe was named, so invoke.yaml had it"
    return None, [f"{', '.join(needed)} cannot be typed, and {where}"]


def _is_replaced(name: str, config: JsonObject) -> bool:
    """Whether another option of the run stands instead of this one, as --epochs does for --iters."""
    return any(each.instead_of == name and config.get(each.name) is not None for each in options_of(LoraConfig))


def _start(project: Project, origin: Origin | None) -> list[str]:
    """What to type so that a run begins where another began."""
    if origin is None:
        return []
    if origin.run is not None:
        return ["--branch", "--branch-from", f"{origin.run}:{origin.iteration}"]
    return ["--adopt", path_of(project, project.from_root(origin.folder))]


def _typed(option: Option, value: Any) -> list[str] | None:
    """The option as typed, None where it cannot be."""
    if option.kind is bool:
        flags = {True: option.flag, False: f"--no-{option.flag[2:]}" if option.default is True else None}
        flag = flags[bool(value)]
        return None if flag is None else [flag]
    if value is None:
        return None
    if option.kind is dict:
        return [option.flag, json.dumps(value, ensure_ascii=False)]
    if option.kind is list:
        items = [str(each) for each in value]
        is_typable = bool(items) and all(item.strip() == item != "" and "," not in item for item in items)
        return [option.flag, ",".join(items)] if is_typable and not items[0].startswith("-") else None
    text = str(value)
    is_typable = option.kind is not str or (text.strip() != "" and not text.startswith("-"))
    return [option.flag, text] if is_typable else None


def path_of(project: Project, folder: Path) -> str:
    """A file or folder as it can be typed from where the command is given."""
    place = project.relative(folder)
    return place if project.resolve(place) == folder else str(folder)
