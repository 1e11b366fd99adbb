"""A new project: its folder is whole or absent, and a folder that is there keeps what is in it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mlxops import files, texts
from mlxops.config import InitConfig, InstallDepsConfig
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.jobs.project import install_deps
from mlxops.projects import environment, machine, templates
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

_LORA = """\
    # model: NAME           a folder in models/, or an id of the hub
    data: data
    iters: 100
    learning_rate: 1.0e-4
    steps_per_eval: 20
    save_every: 20"""


@dataclass(frozen=True, kw_only=True)
class NewProject:
    """A project that was made: its folder, the files written into it, and what is done next."""

    folder: str
    template: str
    files: list[str]
    has_environment: bool
    has_git: bool
    next: list[str]


def init(invocation: Invocation, config: InitConfig, say: Callable[[str], None]) -> NewProject:
    """Make a project in a new or empty folder, or in the current one.

    Raises `BadRequest` for a name that cannot be one, `Refused` where something is in the way, `Failed` where the disk
    says no; then nothing is left behind. A project whose environment could not be made is whole without it.
    """
    cwd = invocation.project.cwd
    if config.python is not None:
        if config.no_env:
            raise BadRequest("--python makes an environment, and --no-env none", hint="leave out one of them")
        environment.check(install_deps.python_of(config.python))
    folder = _folder(config, cwd)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(folder.parent, f".{folder.name[:80]}.init") as scratch:
            made = scratch / "project"
            _write(made, folder.name, config)
            written = sorted(each.relative_to(made).as_posix() for each in made.rglob("*") if each.is_file())
            if config.here:
                written = _add(made, folder, written)
            else:
                made.rename(folder)
    except OSError as error:
        raise Failed(f"{str(folder)!r} cannot be written: {error.strerror or error}") from error
    if config.python is not None:
        inside = replace(invocation, project=Project.at(folder))
        settings = InstallDepsConfig(python=config.python)
        install_deps.install_deps(inside, settings, install_deps.source_of(folder), say)
    elif not config.no_env:
        templates.link_environment(folder)
    has_environment = (folder / ".venv").is_dir()
    return NewProject(
        folder=str(folder),
        template=config.template,
        files=written,
        has_environment=has_environment,
        has_git=_init_git(folder),
        next=[
            *([] if config.here else [f"cd {shlex.quote(os.path.relpath(folder, cwd))}"]),
            *([] if has_environment else ["inv install-deps"]),
            "inv model.import sample",
            "inv lora --model SmolLM2-135M-Instruct --config recipes/small.yaml",
        ],
    )


def _folder(config: InitConfig, cwd: Path) -> Path:
    if config.here:
        if config.name:
            raise BadRequest("a name and --here name two folders", hint="`inv init --here` takes the current folder")
        if (cwd / "tasks.py").exists():
            raise Refused(f"{str(cwd)!r} has a tasks.py: it is a project already", hint="`inv --list` lists its tasks")
        return cwd
    name = config.name
    if not name.strip():
        raise BadRequest("the new project needs a name", hint="`inv init my-project`, or `inv init --here`")
    folder = Path(os.path.normpath(cwd / files.expanded(name)))
    if folder.name:
        texts.check_name(folder.name, texts.PROJECT, hint="`inv init my-project`")
    else:
        raise BadRequest(f"{name!r} is the root of the file system", hint="`inv init my-project`")
    if folder.is_dir():
        if any(folder.iterdir()):
            raise Refused(
                f"{name!r} is not empty",
                hint=f"`cd {shlex.quote(name)}`, then `inv init --here` adds what is missing; or choose another name",
            )
    elif os.path.lexists(folder):
        raise BadRequest(f"{name!r} is a file", hint="choose another name")
    return folder


def _write(made: Path, name: str, config: InitConfig) -> None:
    templates.write_project(made, config.template, {"name": name, "lora": _LORA})
    templates.write_data(made / "data", "manual")
    templates.write_recipes(made / "recipes")
    (made / "models").mkdir()


def _add(made: Path, folder: Path, names: list[str]) -> list[str]:
    """Move the files that are missing into a folder; one that cannot be moved takes the others back."""
    added: list[Path] = []
    (folder / "models").mkdir(exist_ok=True)
    # rows of the sample among a person's own would be trained on
    own_data = (folder / "data").exists()
    try:
        for name in names:
            target = folder / name
            if os.path.lexists(target) or (own_data and name.startswith("data/")):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            (made / name).rename(target)
            added.append(target)
    except BaseException:
        for target in added:
            target.unlink(missing_ok=True)
        raise
    return [target.relative_to(folder).as_posix() for target in added]


def _init_git(folder: Path) -> bool:
    """Whether the folder is under git, having made it so where git is there and no repository is around it."""
    git = machine.git()
    if git is None:
        return False
    around = subprocess.run([git, "-C", folder, "rev-parse", "--is-inside-work-tree"], capture_output=True)
    if around.returncode == 0:
        return True
    return subprocess.run([git, "-C", folder, "init", "--quiet"], capture_output=True).returncode == 0
