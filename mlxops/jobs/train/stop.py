"""Stopping a training that another process works on: it is asked to save and end, or killed, and waited for.

A signal goes only to the very process that is recorded: of this machine, of this start of it, and as old as it says.
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mlxops import registry
from mlxops.config import StopConfig
from mlxops.errors import Failed, Interrupted, Refused
from mlxops.projects.invocation import Invocation
from mlxops.registry import AttemptRow, FoundRun
from mlxops.registry.opening import reading
from mlxops.system import processes
from mlxops.training import checkpoints, lock

Waiting = Callable[[str], AbstractContextManager[None]]
"""Says what is waited for while a block runs."""

_BY_SIGNAL = ("SIGTERM", "SIGINT", "SIGHUP")

_LOOK_AGAIN = 0.2
"""Seconds between two looks at a process, where the system cannot tell of its end."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The process that works on a run, as the run's attempt has it, or before there is one the run's lock."""

    pid: int
    host: str
    boot_id: str | None
    process_started: str | None

    @property
    def identity(self) -> tuple[str, str | None, int, str | None]:
        """What tells it from every other process."""
        return self.host, self.boot_id, self.pid, self.process_started

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return registry.is_this_machine(self.host, self.boot_id)


@dataclass(frozen=True, kw_only=True)
class StoppedRun:
    """How a training ended that was to be stopped, and where the same command resumes; None where it is finished.

    `state` is one of stopped, killed, finished, ended (by an error of its own), lost and idle (nobody was at work).
    """

    run: str
    state: str
    status: str
    pid: int | None
    iteration: int
    target_iterations: int
    goes_on_from: int | None
    error: str | None
    command: str | None
    last_seen: str | None
    host: str | None


def stop(invocation: Invocation, config: StopConfig, waiting: Waiting) -> StoppedRun:
    """Have the process at work on a run save and end, or with `now` kill it, and tell how it ended.

    Raises `Refused` for a process of another machine or one that cannot be proven to be the run's, `Failed` where the
    system does not let this user signal it, `Interrupted` when Ctrl-C ends the waiting; the run then ends by itself.
    """
    project = invocation.project
    run, attempt = _look(invocation, config.run)
    folder = project.from_root(run["adapter_path"])
    worker = _worker(attempt, folder)
    # of another machine's process only its silence can be told
    if worker is None or (run["status"] == "lost" and not worker.is_here):
        return _at_rest(run, attempt, folder)
    with processes.opened(worker.pid) as descriptor:
        if registry.is_proven_dead(*worker.identity):
            return _ended(invocation, run["name"], worker, folder, now=False)  # it ended in this instant
        _check(worker, run["name"], invocation)
        was_stopping = None if config.now else lock.holder_of(folder / lock.NAME).get("stopping")
        if not was_stopping:
            _send(worker, descriptor, signal.SIGKILL if config.now else signal.SIGTERM, run["name"])
        try:
            with waiting(_waits_for(run["name"], worker, was_stopping, now=config.now)):
                _wait(worker, descriptor)
        except KeyboardInterrupt:
            raise Interrupted(
                signal.SIGINT,
                f"no longer waiting: {run['name']!r} was asked to save and stop, and does so by itself",
                hint=f"`inv monitor --run {shlex.quote(run['name'])}` shows it",
            ) from None
    return _ended(invocation, run["name"], worker, folder, now=config.now)


def _look(invocation: Invocation, name: str) -> tuple[FoundRun, AttemptRow | None]:
    """A run and its last attempt; attempts proven dead are closed first."""
    with reading(invocation.project.registry_path) as db:
        run = registry.find_run(db, name)
        attempts = registry.attempts_of(db, run["id"])
    return run, attempts[-1] if attempts else None


def _worker(attempt: AttemptRow | None, folder: Path) -> Worker | None:
    """Who works on a run, None where nobody can be."""
    if attempt is not None and attempt["ended_at"] is None:
        worker = Worker(
            pid=attempt["pid"],
            host=attempt["host"],
            boot_id=attempt["boot_id"],
            process_started=attempt["process_started"],
        )
    elif lock.is_held(folder / lock.NAME):
        said = lock.holder_of(folder / lock.NAME)  # it is loading: its attempt begins after
        worker = Worker(
            pid=int(said.get("pid") or 0),
            host=said.get("host") or registry.this_host(),
            boot_id=said.get("boot_id"),
            process_started=said.get("process_started"),
        )
    else:
        return None
    # only a registry that cannot be written still has dead ones
    return None if registry.is_proven_dead(*worker.identity) else worker


def _check(worker: Worker, name: str, invocation: Invocation) -> None:
    """Refuse a process that this one cannot tell from others."""
    who = f"process {worker.pid}"
    if not worker.is_here:
        there = f"cd {shlex.quote(str(invocation.project.root))} && inv train.stop {shlex.quote(name)}"
        raise Refused(
            f"the run {name!r} is trained by {who} on {worker.host}, and this is {registry.this_host()}",
            hint=f"ssh {shlex.quote(worker.host)} {shlex.quote(there)}",
        )
    if not registry.is_proven_alive(*worker.identity):
        raise Refused(
            f"nothing proves that {who} here is the one that trains {name!r}; it may be another container's",
            hint=f"stop it where it was started: kill -TERM {worker.pid}",
        )


def _send(worker: Worker, descriptor: int | None, number: signal.Signals, name: str) -> None:
    try:
        processes.send(worker.pid, descriptor, number)
    except ProcessLookupError:
        return  # it ended in this instant
    except PermissionError as error:
        raise Failed(
            f"process {worker.pid}, which trains {name!r}, is {_owner_of(worker.pid)}: you may not signal it",
            hint=f"sudo kill -{number.name.removeprefix('SIG')} {worker.pid}, or ask them",
        ) from error


def _owner_of(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).username()}'s"
    except psutil.Error:
        return "another user's"


def _waits_for(name: str, worker: Worker, was_stopping: str | None, *, now: bool) -> str:
    if now:
        return f"killed process {worker.pid}, which trained {name!r}"
    asked = f"is stopping already ({was_stopping})" if was_stopping else "was asked to save and stop"
    return f"{name!r} (process {worker.pid}) {asked}; Ctrl-C leaves it to that, --now kills it"


def _wait(worker: Worker, descriptor: int | None) -> None:
    """Return when the process has ended."""
    processes.wait_for_end(descriptor)
    while registry.is_proven_alive(*worker.identity):
        time.sleep(_LOOK_AGAIN)


def _at_rest(run: FoundRun, attempt: AttemptRow | None, folder: Path) -> StoppedRun:
    """What there is to say of a run that nobody works on."""
    is_lost = run["status"] == "lost" or (attempt is not None and attempt["end_reason"] in (None, "lost"))
    is_finished = run["status"] == "completed"
    return _facts("lost" if is_lost and not is_finished else "idle", run, attempt, None, folder)


def _ended(invocation: Invocation, name: str, worker: Worker, folder: Path, *, now: bool) -> StoppedRun:
    """How the process that was waited for ended."""
    run, attempt = _look(invocation, name)
    # one that ended while it was loading has no attempt of its own
    reason = attempt["end_reason"] if attempt is not None and attempt["pid"] == worker.pid else None
    if reason is not None and run["status"] == "completed":
        state = "finished"
    elif now:
        state = "killed"
    else:
        state = {None: "stopped", "lost": "lost"}.get(reason, "stopped" if reason in _BY_SIGNAL else "ended")
    return _facts(state, run, attempt, worker, folder)


def _facts(state: str, run: FoundRun, attempt: AttemptRow | None, worker: Worker | None, folder: Path) -> StoppedRun:
    is_finished = run["status"] == "completed"
    newest = None if is_finished else checkpoints.newest(folder, fingerprint=run["fingerprint"])[0]
    return StoppedRun(
        run=run["name"],
        state=state,
        status=run["status"],
        pid=worker.pid if worker else None,
        iteration=run["iteration"],
        target_iterations=run["target_iterations"],
        goes_on_from=None if is_finished else newest.iteration if newest else 0,
        error=attempt["error"] if attempt else None,
        command=(attempt["command"] or None) if attempt else None,
        last_seen=attempt["heartbeat_at"] if attempt else None,
        host=attempt["host"] if attempt else None,
    )
