"""A command that is killed at an instant of its work on files and typed again: what stands there in between and after.

One process imports what the command needs and forks another for each instant. Several kills follow each other in one
project, each later in the work than the one before, until the command is given once more and left alone: each start
finds what the kill before it left, and twenty kills take little longer than ten commands.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

IN_A_ROW = 5  # kills before the command is left alone
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "sqlite3.connect"}


def work(
    project: Path,
    command: list[str],
    instant: int | None,
    told: Callable[[int, list[str]], object] = lambda count, modules: None,
) -> int:
    """Give a command in a process of its own, killed at an instant (from 1) of its work in the project's folders."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.chdir(project)
    os.environ["MLXOPS_DB"] = str(project / "runs.db")
    silence = os.open(project.with_name("output"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    seen = [0]

    def happens(cut: Path | None = None) -> None:
        seen[0] += 1
        if seen[0] == instant:
            if cut is not None:
                os.truncate(cut, cut.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    places = (str(project / "models"), str(project / "runs.db"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and arguments and str(arguments[0]).startswith(places):
            happens()

    import mlx.core as mx

    save = mx.save_safetensors

    def save_in_two(file: str, *given: Any, **named: Any) -> None:
        save(file, *given, **named)
        happens(Path(file))

    mx.save_safetensors = save_in_two
    sys.addaudithook(hook)
    from mlxops.__main__ import program

    code = 0
    try:
        program.run(["mlx-toolkit", *command])
    except SystemExit as ended:
        code = int(ended.code or 0)
    told(seen[0], sorted(sys.modules))
    os._exit(code)


def state(folder: Path) -> str | None:
    """The hash of all that a folder holds, but for what names this one making of it; None where it is not there."""
    if not folder.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "fused.json":
            digest.update(f"{file.relative_to(folder)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Completed:
    """What a command came to that was left alone after kills."""

    code: int
    is_whole: bool
    left: tuple[str, ...]
    evaluations: int | None


@dataclass(frozen=True)
class Survived:
    """The command that nothing befell, how many instants its work has, what the kills left, what completed them.

    `half` tells for each kill whether what stood there was neither what was there before nor what is wanted.
    """

    code: int
    is_made: bool
    instants: int
    signals: tuple[int, ...]
    half: tuple[bool, ...]
    completed: tuple[Completed, ...]


def survive(
    project: Path, folder: str, count: int, command: list[str], environment: Mapping[str, str], answer: Connection
) -> None:
    """Kill the command at `count` instants, spread over its work; `folder` is the one that it makes.

    For a process of its own, in which MLX has computed nothing.
    """
    os.environ.clear()
    os.environ.update(environment)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        importlib.reload(hub)  # it reads the environment once
    place, counted = project.with_name("work"), project.with_name("counted")
    shutil.copytree(project, place)
    code = work(place, command, None, lambda *seen: counted.write_text(json.dumps(seen)))
    wanted, (total, modules) = state(place / folder), json.loads(counted.read_text())
    for name in modules:  # what the command needs is imported once, and computes nothing before the forks
        with suppress(Exception):
            importlib.import_module(name)
    before = state(project / folder)
    instants = [1 + number * (total - 1) // (count - 1) for number in range(count)]
    rows = -(-count // IN_A_ROW)
    signals, half, completed = [], [], []

    def complete(code: int) -> None:
        left = sorted(path.name for path in (place / "models").iterdir() if path.name.startswith("."))
        completed.append(Completed(code, state(place / folder) == wanted, tuple(left), _evaluations(place)))
        shutil.rmtree(place)
        shutil.copytree(project, place)

    shutil.rmtree(place)
    shutil.copytree(project, place)
    for row in range(rows):
        for instant in instants[row::rows]:
            ended = work(place, command, instant)
            if ended == 0:  # what the kills before it left is so much that there is no such instant
                complete(ended)
                ended = work(place, command, instant)
            signals.append(-ended)
            half.append(state(place / folder) not in (None, before, wanted))
        complete(work(place, command, None))
    answer.send(Survived(code, wanted is not None, total, tuple(signals), tuple(half), tuple(completed)))


def _evaluations(project: Path) -> int | None:
    import sqlite3

    if not (project / "runs.db").exists():
        return None
    with closing(sqlite3.connect(project / "runs.db")) as db, db:
        return int(db.execute("SELECT count(*) FROM evaluations WHERE kind = 'fuse'").fetchone()[0])
