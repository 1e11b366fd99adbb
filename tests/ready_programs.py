"""Programs for PATH that start at once: each command is forked from the server of `forked_server`.

A page has dozens of commands, and four fifths of a small one is loading libraries. What is typed, the current folder,
the environment, the streams and the exit code are the command's own; only the libraries are there already. What
ends the program that was typed kills the command.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from multiprocessing import reduction
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryFile

import forked_server
import pytest
from commands import Ended

PROGRAMS = ("inv", "mlx-toolkit", "mlx_lm", "mlx_lm.generate", "python")
"""`python` runs scripts, and has the libraries of a command."""

_CLIENT = """\
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(os.path.join(os.path.dirname(__file__), "server"))
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
sys.exit(int(server.recv(16) or b"1"))
"""


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A folder for PATH with programs that start at once."""
    with ready_programs(tmp_path / "programs") as folder:
        yield folder


@contextmanager
def ready_programs(folder: Path) -> Iterator[Path]:
    """A new folder for PATH with `PROGRAMS`, which work until the end of the block."""
    folder.mkdir(parents=True)
    client = folder / "client.py"
    client.write_text(_CLIENT, encoding="utf-8")
    for name in PROGRAMS:
        # a `#!` line takes no path with a space
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{client}" "$0" "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    # the path of a socket is short: bound from inside its folder
    server = socket.socket(socket.AF_UNIX)
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        server.bind("server")
    finally:
        os.fchdir(here)
        os.close(here)
    server.listen()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    try:
        yield folder
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _serve(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client:
        _, streams, _, _ = socket.recv_fds(client, 1, 3)
        with client.makefile("rb") as rest:
            argv, folder, environment = json.loads(rest.readline())
        try:
            sent = tuple(map(reduction.DupFd, streams))
            process = forked_server.forks().Process(target=_run, args=(argv, folder, environment, sent), daemon=True)
            process.start()
        finally:
            for each in streams:
                os.close(each)
        if process.sentinel not in wait([process.sentinel, client]):
            process.kill()
        process.join()
        code = process.exitcode or 0
        with suppress(OSError):
            client.sendall(str(code if code >= 0 else 128 - code).encode())


def _run(argv: list[str], folder: str, environment: dict[str, str], streams: tuple[reduction.DupFd, ...]) -> None:
    for number, stream in enumerate(streams):
        received = stream.detach()
        os.dup2(received, number)
        os.close(received)
    # what a process of this kind has for standard input is empty
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    forked_server.hear_signals()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if hub := sys.modules.get("huggingface_hub.constants"):
        importlib.reload(hub)  # it reads the environment once
    name, *arguments = argv
    if Path(name).name == "python":
        _run_python(*arguments)
        return
    sys.argv = argv
    (program,) = {each for each in metadata.entry_points(group="console_scripts") if each.name == Path(name).name}
    sys.exit(program.load()())


def _run_python(first: str, *rest: str) -> None:
    """What Python does with a script, with `-c` and its source, or with `-m` and the name of a module.

    `-P` before these changes nothing: the server does not import from the current folder.
    """
    if first == "-P":
        _run_python(*rest)
    elif first == "-c":
        source, *arguments = rest
        sys.argv = ["-c", *arguments]
        exec(compile(source, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        module, *arguments = rest
        sys.argv = [module, *arguments]
        sys.modules.pop(f"{module}.__main__", None)  # else a warning
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def run_forked(*arguments: str, environment: dict[str, str] | None = None) -> Ended:
    """What `run_python` does, without the second that loading the libraries takes."""
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        with Path(os.devnull).open() as nothing:
            sent = tuple(reduction.DupFd(each.fileno()) for each in (nothing, out, err))
        given = {**os.environ, **(environment or {})}
        process = forked_server.forks().Process(
            target=_run, args=(["python", *arguments], str(Path.cwd()), given, sent), daemon=True
        )
        process.start()
        process.join()
        out.seek(0)
        err.seek(0)
        return process.exitcode or 0, out.read(), err.read()
