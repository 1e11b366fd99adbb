"""The command that goes on with what is there: written so that it can be typed as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlxops.config import LoraConfig
from mlxops.options import Option, options_of
from mlxops.projects.project import Project
from mlxops.settings import Settings

_OF_ONE_COMMAND = frozenset(
    {
        "model", "data", "train", "config", "iters", "epochs", "adapter_path", "name", "note", "tag", "new", "branch",
        "branch_from", "adopt", "verify_resume", "detach", "preview", "json",
    }
)  # fmt: skip
_FROM_MLX_LM = (
    "learning_rate", "batch_size", "max_seq_length", "seed", "optimizer", "mask_prompt", "grad_checkpoint",
    "grad_accumulation_steps", "steps_per_report", "steps_per_eval", "val_batches", "save_every",
)  # fmt: skip


def program(settings: Settings) -> str:
    """The program that was typed."""
    return next(iter(shlex.split(settings.command or "")), "inv")


def going_on(
    settings: Settings, project: Project, run: Mapping[str, Any], *, folder: str, target: int
) -> tuple[str, list[str]]:
    """The command that goes on with a run in its folder up to a target, and what it needs besides.

    `run` has the columns of its row. Everything that decides the weights is in the command, or in the recipe it names.
    """
    stored = run["config"]
    recipe, notes = _recipe(project, stored)
    words = ["--adapter-path", folder, "--model", run["model"], "--data", run["data"], "--iters", str(target)]
    words += ["--config", recipe] if recipe else []
    for option in options_of(LoraConfig):
        if option.name in _OF_ONE_COMMAND or not option.on_command_line or option.name not in stored:
            continue
        # a recipe may say otherwise than the command line did
        if stored[option.name] != option.default or (recipe and option.role == "weights"):
            words += _typed(option, stored[option.name])
    return shlex.join([program(settings), "lora", *words]), notes


def adopting(
    settings: Settings, project: Project, said: Mapping[str, Any], *, path: str, target: int
) -> tuple[str, list[str]]:
    """The command that takes over an adapter of mlx_lm.lora, with the settings its `adapter_config.json` has."""
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
    known = {option.name: option for option in options_of(LoraConfig)}
    for name in _FROM_MLX_LM:
        value = said.get(name)
        if value is not None and value != known[name].default and isinstance(value, (str, int, float)):
            words += _typed(known[name], value)
    if said.get("lr_schedule"):
        notes.append("adapter_config.json has an lr_schedule, which only a recipe (--config) can give")
    return shlex.join([program(settings), "lora", *words]), notes


def _recipe(project: Project, stored: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The recipe that a run was started with, and a note where it is needed and not there."""
    recipe = stored.get("config")
    if recipe and project.resolve(recipe).is_file():
        return project.relative(project.resolve(recipe)), []
    needed = [
        option.name
        for option in options_of(LoraConfig)
        if not option.on_command_line and stored.get(option.name, option.default) != option.default
    ]
    if not needed:
        return None, []
    where = f"the recipe {recipe!r} is gone" if recipe else "no recipe was named, so invoke.yaml had it"
    return None, [f"{', '.join(needed)} cannot be typed, and {where}"]


def _typed(option: Option, value: Any) -> Iterable[str]:
    if option.kind is bool:
        return [option.flag] if value else [f"--no-{option.flag[2:]}"] if option.default is True else []
    if value is None:
        return []
    if option.kind is list:
        return [option.flag, ",".join(map(str, value))] if value else []
    return [option.flag, str(value)]


def path_of(project: Project, folder: Path) -> str:
    """A folder as it can be typed from where the command is given."""
    place = project.relative(folder)
    return place if project.resolve(place) == folder else str(folder)
