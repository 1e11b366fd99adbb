"""Options of the tasks on projects."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class QuickstartConfig:
    """Settings of the first try."""

    dir: str = option("quickstart", "folder of the project that is made, or resumed", path=True)
    iters: int = option(30, "iterations to train for", at_least=1, at_most=HUGE)
    tiny: bool = option(False, "a tiny random model made on the spot: no network, and answers without sense")
    json: bool = option(False, "the result as JSON")


@settings
class InitConfig:
    """Settings of a new project."""

    EXAMPLES: ClassVar = ("init my-project", "init my-project --template advanced", "init --here")

    name: str = option("", "folder of the project that is made", positional=True, path=True)
    here: bool = option(False, "make the current folder a project; what is in it stays")
    template: Literal["basic", "advanced"] = option(
        "basic", "files to start with; advanced adds three scripts made for changing"
    )
    python: str | None = option(None, "make an environment of its own with this Python (program or path)")
    no_env: bool = option(False, "no .venv, which else is a link to the environment that runs this if that has MLX")
    json: bool = option(False, "the result as JSON")


@settings
class ListTemplatesConfig:
    """Settings of the list of templates."""

    json: bool = option(False, "as JSON")


@settings
class InstallDepsConfig:
    """Settings of the project's environment."""

    dev: bool = option(False, "also what tests and checks need")
    backend: Literal["auto", "metal", "cpu", "cuda12", "cuda13"] = option(
        "auto", "what MLX computes on; auto keeps the one there, else takes the GPU whose driver is here"
    )
    upgrade: bool = option(False, "newer versions of what is there; else nothing is done where nothing is missing")
    python: str | None = option(None, "program or path of the Python to use (the one at work unless given)")
    json: bool = option(False, "the result as JSON")


@settings
class StatusConfig:
    """Settings of the state of machine and project."""

    live: bool = option(False, "keep drawing until q or Ctrl-C, in a terminal")
    refresh: float = option(2.0, "seconds between two looks", at_least=0.5, at_most=3600)
    json: bool = option(False, "as JSON")


@settings
class DoctorConfig:
    """Settings of the checks of machine and project."""

    EXAMPLES: ClassVar = ("doctor", "doctor --fix", "doctor --self-test")

    fix: bool = option(False, "do the cures that are safe, and say so; without it nothing is written")
    self_test: bool = option(
        False, "train, kill, resume and stop in a temporary project: ten checks in about a minute, for a bug report"
    )
    json: bool = option(False, "as JSON")


@settings
class CleanConfig:
    """Settings of the removal of what only costs room."""

    EXAMPLES: ClassVar = ("clean", "clean --what hub,samples")

    what: list[str] = option(
        [],
        "kinds to remove: prefix, set-aside, half-written, temporary, crashes, downloads, compiled, lists, samples, "
        "hub; all but the last two unless given",
    )
    yes: bool = option(False, "do not ask")
    json: bool = option(False, "what is there, or was removed, as JSON")


@settings
class UpdateConfig:
    """Settings of an update."""

    check: bool = option(False, "show what is new, and change nothing")
    json: bool = option(False, "the result as JSON")
