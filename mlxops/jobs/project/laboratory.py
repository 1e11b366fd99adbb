"""A place where a self-test tries things out: a temporary folder, its own home and cache, and what runs in it."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops import files
from mlxops.errors import Failed
from mlxops.jobs.ending import ending_by_exceptions
from mlxops.projects import machine
from mlxops.projects.invocation import Invocation
from mlxops.registry import JsonObject

PATIENCE = 300.0  # seconds until a command counts as hanging

_PREFIX = ".mlxops-self-test."  # as what `clean` finds where a process was killed
_MADE_ONCE = ("blas", "kernels")  # of the cache: what is made once a machine, and takes its time
_OURS = ("MLXOPS_", "INVOKE_", "HF_", "XDG_")
_STOPPED = "stopped; nothing is left behind"


class Unexpected(Exception):
    """A command of the self-test did not do what it should: what is said of that."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """How a command ended: the exit code, negative for a signal, and what it said."""

    command: str
    code: int
    out: str
    err: str

    def facts(self) -> JsonObject:
        """What it said as JSON. Raises `Unexpected` where it failed, or said something else."""
        try:
            found: JsonObject = json.loads(self.out)
        except ValueError:
            raise Unexpected(self.as_failure()) from None
        return found

    def as_failure(self) -> str:
        """The sentence that says that it failed: its own last words, without the hint."""
        said = [line for line in (self.err or self.out).strip().splitlines() if not line.startswith("hint:")]
        how = f"exit code {self.code}" if self.code >= 0 else f"ended by {signal.Signals(-self.code).name}"
        return f"`{self.command}`: {how}: {said[-1]}" if said else f"`{self.command}`: {how}"


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """The folder, the Python whose mlxops is tried, and the environment of its processes."""

    folder: Path
    python: Path
    environ: Mapping[str, str]

    @property
    def project(self) -> Path:
        """The project that the training makes, and the others work in."""
        return self.folder / "project"

    def run(self, *words: str, codes: Sequence[int] = (0,), folder: Path | None = None) -> CommandResult:
        """Run a command of mlxops in the project, or in another folder. Raises `Unexpected` for other exit codes."""
        command = [str(self.python), "-P", "-m", "mlxops", *words]
        ended = self._run(command, "mlx-toolkit " + " ".join(words), folder or self.project, self.environ)
        if ended.code not in codes:
            raise Unexpected(ended.as_failure())
        return ended

    def evaluate(self, program: str, **environ: str) -> Any:
        """What a Python program prints as JSON, with these variables. Raises `Unexpected` where it fails."""
        command = [str(self.python), "-P", "-c", program]
        return self._run(command, "python -c …", self.folder, {**self.environ, **environ}).facts()

    def run_unread(self, *words: str) -> CommandResult:
        """Run a command of mlxops whose reader has left before it says anything."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            command = [str(self.python), "-P", "-m", "mlxops", *words]
            return self._run(command, "mlx-toolkit " + " ".join(words), self.project, self.environ, stdout=writing)
        finally:
            os.close(writing)

    def _run(
        self, command: list[str], shown: str, folder: Path, environ: Mapping[str, str], stdout: int | None = None
    ) -> CommandResult:
        with tempfile.TemporaryFile(dir=self.folder) as out, tempfile.TemporaryFile(dir=self.folder) as err:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Unexpected(f"`{shown}` did not end within {PATIENCE:.0f} s") from None
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            said = []
            for each in (out, err):
                each.seek(0)
                said.append(each.read().decode(errors="replace"))
        return CommandResult(command=shown, code=code, out=said[0], err=said[1])


@contextmanager
def laboratory(invocation: Invocation, python: Path) -> Iterator[Laboratory]:
    """A place to try things out, in the folder of the project so that its file system is tried too.

    Whatever ends the block, its processes are ended and the folder is removed. Raises `Failed` where the folder cannot
    be made, `Interrupted` for Ctrl-C and the like.
    """
    root = invocation.project.root
    with ExitStack() as stack:
        stack.enter_context(ending_by_exceptions(_STOPPED, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
        try:
            folder = stack.enter_context(files.scratch_folder(root, _PREFIX))
            stack.callback(_end_all, folder.resolve())
            made = Laboratory(folder=folder, python=python, environ=_environ(folder, invocation))
            made.project.mkdir()
        except OSError as error:
            raise Failed(
                f"the self-test cannot work in {str(root)!r}: {error.strerror or error}",
                hint="cd into a folder that you can write in, on the disk that your projects are on",
            ) from error
        yield made


def _environ(folder: Path, invocation: Invocation) -> dict[str, str]:
    """The environment of its processes: no settings of the person's, and nothing that is kept outside of the folder."""
    # ends the search for the project, and the one of the person
    (folder / "tasks.py").touch()
    home, cache = folder / "home", folder / "cache"
    home.mkdir()
    cache.mkdir()
    there = invocation.cache or machine.user_cache()
    for name in _MADE_ONCE:
        if there is not None and (there / name).is_dir():
            with suppress(OSError):  # without links it is made again
                (cache / name).symlink_to(there / name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    ours = {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "MLXOPS_CACHE": str(cache),
        "NO_COLOR": "1",
        "PYTHONUSERBASE": site.getuserbase(),
        **({"MLXOPS_BLAS": invocation.blas} if invocation.blas is not None else {}),
    }
    return {**kept, **ours}


def _end_all(folder: Path) -> None:
    """Kill what works in the folder, trainings in the background too, and return when it is gone."""
    import psutil

    while found := [each for each in psutil.process_iter() if _works_in(each, folder)]:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        _, alive = psutil.wait_procs(found, timeout=10)
        if alive:  # the kernel waits for a disk: nothing can be done
            return


def _works_in(process: Any, folder: Path) -> bool:
    import psutil

    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):  # gone meanwhile, or another user's
        return False
