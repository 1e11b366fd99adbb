"""A training in the background: a process of its own session, without a terminal, whose log stands beside its run.

The process that starts it hears from it through a pipe: which run it holds, and that its first step is next. Where the
pipe closes before that, the training has ended, and what it said and its exit code are handed on.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypedDict

from mlxops.errors import Failed
from mlxops.events import Event, Listener, Started
from mlxops.jobs.train import claim as claims
from mlxops.jobs.train.session import Begun, Training

LOG = "train.log"

_MARK = "MLXOPS_BACKGROUND"
_PROGRAMS = {"mlx-toolkit": "mlxops", "inv": "invoke"}
_SHOWN = 40
"""Lines of what a training said that are handed on where it failed."""


def is_wanted(training: Training) -> bool:
    """Whether there is something to start in the background; what ends at once is said in the foreground."""
    if not training.prepared.config.detach or training.invocation.background is not None:
        return False
    outlook = claims.preview(training.project, training.prepared)
    return outlook.refusal is None and outlook.decision.kind != "finished"


@dataclass(frozen=True, kw_only=True)
class DetachedTraining:
    """A training in the background: its run, process, folder and log, and the commands that watch and stop it."""

    run: str
    pid: int
    folder: str
    log: str
    commands: tuple[str, str]


class _Held(TypedDict):
    """What the process says of the run that it holds; `begins` is where in the log its words begin."""

    run: str
    folder: str
    begins: int


def start(training: Training, waiting: Callable[[str], AbstractContextManager[None]]) -> DetachedTraining | None:
    """Start the command as typed in the background, and return when its first step is next: run, process, log.

    None where there was nothing left to train after all. Raises `Failed`, with the exit code and the words of the
    training, where it ended before its first step. Ctrl-C until then ends it, too.
    """
    program, *typed = shlex.split(training.invocation.command or "")
    command = [sys.executable, "-m", _PROGRAMS[program], *(word for word in typed if word != "--detach")]
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as early, os.fdopen(reading, "rb") as pipe:
        with _without_hangups():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=early,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,
                env={**os.environ, _MARK: str(writing)},
            )
        os.close(writing)
        try:
            with waiting(f"starting it in the background (process {process.pid})"):
                heard = [json.loads(line) for line in pipe]
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        if len(heard) == 2:
            process.returncode = 0  # it outlives this one, which would else be warned of it
            return _facts(training, process.pid, program, heard[0])
        code = process.wait()
        if code == 0:
            return None
        failed = Failed(_words(early, heard) or f"the training in the background ended at once, with {code}")
        failed.exit_code = code if code > 0 else 128 - code
        raise failed


def settle(run: Begun) -> list[Listener]:
    """In a process that `start` made: write to the run's log from here on, and listen for what the other one awaits."""
    descriptor = run.training.invocation.background
    if descriptor is None:
        return []
    os.set_inheritable(descriptor, False)
    begins = _write_to(run.claim.folder / LOG, run.training.invocation.command or "")
    _tell(descriptor, run=run.claim.name, folder=str(run.claim.folder), begins=begins)

    def tell_of_the_start(event: Event) -> None:
        if isinstance(event, Started):
            _tell(descriptor, started=event.iteration)
            os.close(descriptor)

    return [tell_of_the_start]


def _write_to(log: Path, command: str) -> int:
    """Have this process print to the end of a log, and return where that is."""
    try:
        opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise Failed(f"the log {str(log)!r} cannot be written: {error.strerror}") from error
    os.write(opened, f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S UTC}  {command}\n".encode())
    begins = os.fstat(opened).st_size
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    os.close(opened)
    return begins


def _tell(descriptor: int, **facts: Any) -> None:
    with suppress(BrokenPipeError):  # who waited for it has gone, and it continues all the same
        os.write(descriptor, json.dumps(facts).encode() + b"\n")


@contextmanager
def _without_hangups() -> Iterator[None]:
    """Have processes that are started in the block ignore SIGHUP, as under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _facts(training: Training, pid: int, program: str, held: _Held) -> DetachedTraining:
    name, folder = held["run"], Path(held["folder"])
    return DetachedTraining(
        run=name,
        pid=pid,
        folder=training.project.relative(folder),
        log=training.project.relative(folder / LOG),
        commands=(shlex.join([program, "monitor", "--run", name]), shlex.join([program, "train.stop", name])),
    )


def _words(early: IO[bytes], heard: list[_Held]) -> str:
    """The last of what a training said that ended before its first step."""
    early.seek(0)
    said = early.read()
    if heard:
        with (Path(heard[0]["folder"]) / LOG).open("rb") as log:
            log.seek(heard[0]["begins"])
            said += log.read()
    return "\n".join(said.decode(errors="replace").strip().splitlines()[-_SHOWN:])
