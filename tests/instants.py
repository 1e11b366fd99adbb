"""A command that is killed at an instant of its work on files and typed again: what stands there in between and after.

`python tests/instants.py PROJECT FOLDER COUNT COMMAND…` imports once what the command needs and forks a process for
each instant, so that twenty kills cost little more than one command. FOLDER is the one that the command makes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def main(project: Path, folder: str, count: int, command: list[str]) -> list[dict[str, Any]]:
    """Kill the command at so many instants, spread over its work, each in a copy of the project."""
    place = project.with_name("work")
    counted = project.with_name("counted")
    shutil.copytree(project, place)
    code = work(place, command, None, lambda *seen: counted.write_text(json.dumps(seen)))
    wanted, (total, modules) = state(place / folder), json.loads(counted.read_text())
    for name in modules:  # what the command needs is imported once, and computes nothing before the forks
        with suppress(Exception):
            importlib.import_module(name)
    before = state(project / folder)
    found: list[dict[str, Any]] = [{"code": code, "instants": total, "state": wanted}]
    for number in range(count):
        shutil.rmtree(place)
        shutil.copytree(project, place)
        killed = work(place, command, 1 + number * (total - 1) // (count - 1))
        after_kill = state(place / folder)
        again = work(place, command, None)
        found.append(
            {
                "killed": killed,
                "is_half": after_kill not in (None, before, wanted),
                "code": again,
                "is_whole": state(place / folder) == wanted,
                "left": sorted(path.name for path in (place / "models").iterdir() if path.name.startswith(".")),
                "evaluations": _evaluations(place),
            }
        )
    return found


def _evaluations(project: Path) -> int | None:
    import sqlite3

    if not (project / "runs.db").exists():
        return None
    with sqlite3.connect(project / "runs.db") as db:
        return int(db.execute("SELECT count(*) FROM evaluations WHERE kind = 'fuse'").fetchone()[0])


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])))
