"""Modules that are run as programs, forked from the server of `forked_server` instead of by new interpreters.

For tests of what such a process does and how it ends; loading its libraries takes longer than a small training.
"""

from __future__ import annotations

import io
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import reduction
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO, Any

import forked_server


class ForkedPopen:
    """What `subprocess.Popen` is for `python -m MODULE …` in a session of its own."""

    def __init__(self, command: Sequence[str], *, stdout: Any, stderr: Any, start_new_session: bool, **options: Any):
        assert (command[0], command[1], start_new_session) == (sys.executable, "-m", True)
        assert options.keys() <= {"stdin", "env", "pass_fds"}
        reading, writing = os.pipe() if stdout == subprocess.PIPE else (None, stdout.fileno())
        places = {1: writing, 2: writing if stderr == subprocess.STDOUT else stderr.fileno()}
        places |= {each: each for each in options.get("pass_fds", ())}
        sent = {number: reduction.DupFd(descriptor) for number, descriptor in places.items()}
        is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._process = forked_server.forks().Process(
            target=_run,
            args=(command[2:], Path.cwd(), options.get("env") or dict(os.environ), sent, is_deaf),
            daemon=True,
        )
        self._process.start()
        self.pid = self._process.pid
        self.returncode: int | None = None
        self.stdout: IO[bytes] | None = None
        if reading is not None:
            os.close(writing)
            self.stdout = os.fdopen(reading, "rb")

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code, negative for the signal that killed it."""
        self._process.join()
        self.returncode = self._process.exitcode or 0
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def __enter__(self) -> ForkedPopen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.stdout is not None:
            self.stdout.close()
        self.wait()


FORKING = SimpleNamespace(Popen=ForkedPopen, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT, DEVNULL=subprocess.DEVNULL)
"""For a module under test, in place of `subprocess`."""


def _run(
    command: list[str], folder: Path, environment: dict[str, str], sent: dict[int, reduction.DupFd], is_deaf: bool
) -> None:
    os.setsid()
    received = {number: each.detach() for number, each in sent.items()}
    for number, descriptor in received.items():
        # what the server's own processes have open is not written over
        assert number in (1, 2, descriptor) or not Path(f"/dev/fd/{number}").exists()
        os.dup2(descriptor, number)
    for descriptor in set(received.values()) - set(received):
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.FileIO(os.open(os.devnull, os.O_RDONLY)), encoding="utf-8")
    forked_server.hear_signals()
    if is_deaf:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    module, *arguments = command
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
