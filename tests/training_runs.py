"""Whole `lora` commands, each in a process of its own that may be signalled, limited or killed.

Each is forked from the server of `forked_server`, which has computed nothing: it starts at once, and MLX's threads,
which a fork would lose, begin in the child. What should befall a command is a function that its process calls first.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from commands import own_cache
from forked_server import forks, hear_signals
from made_once import make_once

from mlxops import registry
from mlxops.events import OF_THE_CLOCK
from mlxops.training import signals

_numbers = count()

RUN = (
    *("--model", "tiny", "--name", "run", "--iters", "13", "--num-layers", "1", "--batch-size", "2"),
    *("--save-every", "4", "--steps-per-report", "3", "--steps-per-eval", "5", "--val-batches", "2"),
    *("--learning-rate", "0.003", "--lora-dropout", "0.1", "--grad-accumulation-steps", "3"),
)
"""A run whose target is off every grid: the report's, the validation's, the checkpoints' and the accumulation's."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: the exit code, negative for the signal that killed it, and what it said."""

    code: int
    said: str


class Command:
    """A `lora` command at work in a project."""

    def __init__(self, project: Path, options: Sequence[str], first: Callable[[], None] | None = None) -> None:
        self._said = project.with_name(f"{project.name}.said-{next(_numbers)}")
        self._begun, begun = multiprocessing.Pipe(duplex=False)
        self._process = forks().Process(target=_run, args=(project, options, self._said, begun, first), daemon=True)
        self._process.start()
        begun.close()
        self.pid = self._process.pid or 0

    def wait_for_training(self) -> None:
        """Return when the model is loaded and the first step is next, or when the command has ended before that."""
        try:
            self._begun.recv_bytes()
        except EOFError:
            return

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it is still there."""
        self.send(signal.SIGKILL)

    @property
    def sentinel(self) -> int:
        """Ready, for `multiprocessing.connection.wait`, when it has ended."""
        return self._process.sentinel

    def wait(self) -> Ended:
        """Wait until it has ended."""
        self._process.join()
        self._begun.close()
        return Ended(self._process.exitcode or 0, self._said.read_text(encoding="utf-8"))


def lora(project: Path, *options: str, first: Callable[[], None] | None = None) -> Ended:
    """Run `lora` with these options in a project, and wait for its end."""
    return Command(project, options, first).wait()


def make_project(folder: Path, model: Path | None = None) -> Path:
    """A project with a copy of the model as `models/tiny` and a few conversations of unlike length in `data/`."""
    if model is not None:
        shutil.copytree(model, folder / "models" / "tiny")
    (folder / "data").mkdir(parents=True)
    for name, numbers in (("train", range(13)), ("valid", range(50, 57))):
        lines = [json.dumps({"messages": _conversation(number)}) + "\n" for number in numbers]
        (folder / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "runs.db").touch()
    return folder


def steps_trained(project: Path) -> int:
    """The steps that all commands in this project trained together."""
    file = _steps(project)
    return file.stat().st_size if file.exists() else 0


def result(project: Path, name: str) -> dict[str, Any]:
    """What of a run is a function of its settings alone, however often it was interrupted.

    The adapters' bytes, all metrics that are no wall-clock figures to the last of their 17 digits, and what the
    registry says of its checkpoints and its end.
    """
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, name)
        metrics = db.rows(
            f"""
            SELECT metric_names.name, iteration, printf('%!.17g', value) AS value
            FROM metrics JOIN metric_names ON metric_names.id = name_id
            WHERE run_id = ? AND metric_names.name NOT IN ({", ".join("?" for _ in OF_THE_CLOCK)})
            ORDER BY metric_names.name, iteration
            """,
            (run["id"], *OF_THE_CLOCK),
        )
        checkpoints = db.rows(
            """
            SELECT iteration, adapter_sha256, train_loss, validation_loss, status
            FROM checkpoints WHERE run_id = ? ORDER BY iteration
            """,
            (run["id"],),
        )
    folder = project / run["adapter_path"]
    last = folder / f"{run['target_iterations']:07d}_adapters.safetensors"
    return {
        "metrics": {(row["name"], row["iteration"]): row["value"] for row in metrics},
        "checkpoints": checkpoints,
        "last": last.read_bytes(),
        "offered": (folder / "adapters.safetensors").read_bytes(),
        "run": {name: run[name] for name in ("status", "iteration", "trained_tokens", "best_validation_loss")},
    }


def newest_checkpoint(project: Path, name: str) -> int:
    """The iteration of the newest checkpoint on disk, 0 without one: its state file comes last and stands for both."""
    found = (project / "adapters" / name).glob("*_state.safetensors")
    return max((int(path.name.split("_")[0]) for path in found), default=0)


def straight_project(model: Path, *options: str) -> Path:
    """A project whose run `run` was trained with these options without any interruption, to be copied.

    It is trained by the first process of the session that asks. Nobody opens its registry there, whose files come and
    go with that while others copy them. What the command said stands beside it in `said`.
    """

    def train(folder: Path) -> None:
        ended = lora(make_project(folder / "project", model), *options)
        assert ended.code == 0, ended.said
        (folder / "said").write_text(ended.said, encoding="utf-8")

    name = f"straight-{hashlib.sha256(repr(options).encode()).hexdigest()[:16]}"
    return make_once(model.parent, name, train) / "project"


def copy_project(project: Path, to: Path) -> Path:
    """A copy of a project, in which no steps are counted yet."""
    return Path(shutil.copytree(project, to, symlinks=True))


def straight(model: Path, *options: str) -> dict[str, Any]:
    """The result of these options without any interruption."""
    project = straight_project(model, *options)

    def read(folder: Path) -> None:
        found = result(copy_project(project, folder / "project"), "run")
        (folder / "result").write_bytes(pickle.dumps(found))

    made = make_once(model.parent, f"{project.parent.name}-result", read)
    found: dict[str, Any] = pickle.loads((made / "result").read_bytes())
    return found


def assert_exact(project: Path, expected: dict[str, Any]) -> None:
    """Hold that the run `run` came out as the uninterrupted one; checkpoints that only stops made do not count."""
    got = result(project, "run")
    wanted = {row["iteration"] for row in expected["checkpoints"]}
    got["checkpoints"] = [row for row in got["checkpoints"] if row["iteration"] in wanted]
    assert got == expected


def contents(folder: Path, pattern: str = "*") -> dict[str, tuple[bytes, int]]:
    """The bytes of a folder's files and when they were written; the lock says who held it last and does not count."""
    files = [path for path in sorted(folder.glob(pattern)) if path.name != ".lock"]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def gates() -> tuple[Event, Event]:
    """What `pause_before` says and waits for."""
    return forks().Event(), forks().Event()


def attempts(project: Path, name: str) -> list[dict[str, Any]]:
    """The attempts of a run in their order."""
    with registry.open_read_only(project / "runs.db") as db:
        return registry.attempts_of(db, registry.find_run(db, name)["id"])


def _conversation(number: int) -> list[dict[str, str]]:
    question = f"And {number + 7}?" + " Think." * (number % 3)
    answer = f"It is {number * (number + 7)}." + " The sum." * (number * 5 % 4)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# what befalls a command ---------------------------------------------------------------------------------------------


STEP = "mlxops.training.step:Trainer.accumulate"
VALIDATED_BATCH = "mlxops.training.step:Validating"
CHECKPOINT = "mlxops.training.checkpoints:write"
LOADING = "mlxops.models.loading:load_model"


def act_before(place: str, act: Callable[[], object], *, call: int | None = None) -> None:
    """Have this process `act` before `module:name` is called for the nth time (from 1), or each time."""
    owner, name = _find(place)
    function, calls = getattr(owner, name), count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if call in (None, next(calls)):
            act()
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def signal_itself(number: signal.Signals, place: str, call: int) -> None:
    """Have this process get a signal just before a call."""
    act_before(place, lambda: os.kill(os.getpid(), number), call=call)


def signal_before(number: signal.Signals, place: str, call: int) -> None:
    """Have this process get a signal just before a call, which waits until it is heard."""
    wait_for_a_signal(lambda: os.kill(os.getpid(), number), place, call)


def wait_for_a_signal(say: Callable[[], object], place: str, call: int) -> None:
    """Have this process say that it is there before a call and wait until it is asked to stop."""
    listen, heard = signals.listen, []

    @contextmanager
    def overheard(*args: Any) -> Iterator[signals.StopRequest]:
        with listen(*args) as request:
            heard.append(request)
            yield request

    def wait() -> None:
        say()
        while not heard[0]:
            os.sched_yield()

    signals.listen = overheard
    act_before(place, wait, call=call)


def pause_before(place: str, call: int, reached: Event, go_on: Event) -> None:
    """Have this process say that it is there and wait before a call."""
    act_before(place, lambda: (reached.set(), go_on.wait()), call=call)


def die_in_the_writer(instant: int) -> None:
    """Have this process kill itself at the nth instant of writing checkpoints, of which each has 29.

    They are before and after every step from the first byte to the committed row, and within a file.
    """
    half = (0.5,)
    within = (0.01, 0.5, 0.99)  # in the header, among the arrays, and in the last of them
    passed, writing = count(1), threading.Event()

    def pass_by(written: Path | None = None, share: float = 1.0) -> None:
        if writing.is_set() and next(passed) == instant:
            if written is not None:
                os.truncate(written, int(written.stat().st_size * share))
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(place: str, written: int = 0, shares: Sequence[float] = ()) -> None:
        owner, name = _find(place)
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            pass_by()
            done = function(*args, **kwargs)
            for share in shares:
                pass_by(Path(args[written]), share)
            pass_by()
            return done

        setattr(owner, name, wrapped)

    watch("mlxops.tensors:write", written=0, shares=within)
    watch("shutil:copyfile", written=1, shares=half)
    watch("mlxops.files:sync")
    watch("pathlib:Path.replace")
    watch("mlxops.registry.entries:add_checkpoint")
    act_before(CHECKPOINT, writing.set)


def fill_the_disk_during(place: str, call: int) -> None:
    """Have no file grow beyond 10 kB during the nth call."""
    owner, name = _find(place)
    function, calls = getattr(owner, name), count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls) != call:
            return function(*args, **kwargs)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit_files(10_000)
        try:
            return function(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    setattr(owner, name, wrapped)


def limit_files(size: int) -> None:
    """Have no file of this process grow beyond a size from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def obey_permissions() -> None:
    """Have this process give up root's right to write where permissions forbid it."""
    if sys.platform != "linux":
        return
    version, nobody = 0x20080522, 0
    header, none = (ctypes.c_uint32 * 2)(version, nobody), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _find(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    owner: Any = import_module(module)
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    return owner, name


# the command's own process -------------------------------------------------------------------------------------------


def _run(
    project: Path, options: Sequence[str], said: Path, begun: Connection, first: Callable[[], None] | None
) -> None:
    from mlxops.__main__ import program

    os.chdir(project)
    os.environ["MLXOPS_CACHE"] = str(own_cache(project.with_name(f"{project.name}.cache")))
    output = os.open(said, os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    hear_signals()
    steps = os.open(_steps(project), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    act_before("mlxops.training.loop:train", lambda: begun.send_bytes(b"training"))
    act_before(STEP, lambda: os.write(steps, b"."))
    if first is not None:
        first()
    sys.argv = ["mlx-toolkit", "lora", *options]
    program.run()


def _steps(project: Path) -> Path:
    return project.with_name(f"{project.name}.steps")
