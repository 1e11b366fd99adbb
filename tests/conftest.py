"""What every test stands on: folders of its own, no network, and the two programs as a person types them."""

from __future__ import annotations

import gc
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import forked_server
import pytest
from commands import CACHE, FAULTS, MADE_ONCE, ROOT, Ended, count_faults, own_cache, run_here, run_python

from mlxops.projects import blas

pytest_plugins = ["emulated_macs", "hubs", "ready_programs", "shared_folders", "tiny_models", "tuned_projects"]

_TASKS = "from mlxops.tasks import namespace\n"
_WHERE = "PYTEST_CURRENT_TEST"
_FAILED = pytest.StashKey[bool]()
_numbers = count()
_OURS = (
    *("MLXOPS_DB", "MLXOPS_BLAS", "MLXOPS_DEBUG", "MLXOPS_API_KEY", "INVOKE_RUNTIME_CONFIG"),
    *("NO_COLOR", "FORCE_COLOR", "COLUMNS"),
)


# A shell's `&` and `nohup` start a command with these ignored, and whatever it starts inherits that: what is under test
# would not hear the Ctrl-C or the hang-up that a test sends.
for _each, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, _usual)


# Without bytecode on disk, hundreds of processes would each compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# As every command does before it imports MLX: trainings in this process are not those of the slow BLAS either.
blas.load(threads=1, core_type=None, cache=CACHE, setting=os.environ.get("MLXOPS_BLAS"))

for _each in MADE_ONCE:
    (CACHE / _each).mkdir(parents=True, exist_ok=True)

_GARBAGE = (20_000, 10, 10)
"""After how many new objects the garbage collector looks for cycles: the 700 of Python take a twentieth of the time."""

_RAM_DISK = Path("/dev/shm")
_ROOM = 8 << 30  # bytes, far more than the folders of a session take at any time


def pytest_configure(config: pytest.Config) -> None:
    """Put the folders of the tests into memory where there is room and nobody names a place.

    Making, syncing and removing a hundred thousand small files takes a third of the time of a suite on a disk.
    """
    is_free = config.option.basetemp is None and not {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & set(os.environ)
    if is_free and os.access(_RAM_DISK, os.W_OK) and shutil.disk_usage(_RAM_DISK).free > _ROOM:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_RAM_DISK)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector pass over the modules and tests that are loaded: they stay to the end.

    It would look through a million objects again and again, a quarter of a second each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*_GARBAGE)
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note that a test failed: its folders stay for whoever looks into it."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have each of several processes begin with its share of the slow tests, in the order they have.

    Each begins with its part of the list, and takes over half of what is left to another at its end: what is quick is
    shared out evenly, and a long test that begins last keeps all others waiting.
    """
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    if count == 1:
        return
    is_slow = [each.get_closest_marker("slow") is not None for each in items]
    slow = [each for each, its_own in zip(items, is_slow, strict=True) if its_own]
    quick = [each for each, its_own in zip(items, is_slow, strict=True) if not its_own]
    items[:] = [each for number in range(count) for kind in (slow, quick) for each in _part(kind, number, count)]


def _part(items: Sequence[pytest.Item], number: int, count: int) -> Sequence[pytest.Item]:
    """The nth (from 0) of so many parts of equal length, which follow each other."""
    return items[number * len(items) // count : (number + 1) * len(items) // count]


@pytest.fixture(scope="session")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, _base: Path) -> Iterator[Path]:
    """A new folder that is removed where the test passes.

    pytest's own looks through the folders of all tests before it makes the next one.
    """
    folder = _base / f"{re.sub(r'[^A-Za-z0-9_]', '_', request.node.name)[:30]}{next(_numbers)}"
    folder.mkdir(mode=0o700)
    yield folder
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of a process that works for another: hand its faults over."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = dict(session.config.stash.get(FAULTS, Counter()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the faults of a process that worked for this one."""
    count_faults(node.config, Counter(getattr(node, "workeroutput", {}).get("faults", {})))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how many faults were injected."""
    if struck := config.stash.get(FAULTS, Counter()):
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(struck.items()))
        terminalreporter.write_line(f"{struck.total()} faults injected: {kinds}")


@pytest.fixture(scope="session", autouse=True)
def _environment(_base: Path) -> Iterator[None]:
    """What is made once a session, and what commands are forked from, have nothing of whoever runs the tests.

    Nor of the first test that needs them. Answers after a training take as long as a small training: the tests of them
    delete the variable that names the settings.
    """
    settings = _base / "settings.yaml"
    settings.write_text("mlxops: {samples: 0}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in _OURS:
            patch.delenv(name, raising=False)
        _move_home(_base / "session-home", patch)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("INVOKE_RUNTIME_CONFIG", str(settings))
        # Two threads that spin for tiny matrices take many times as long where the machine has other work.
        patch.setenv("OPENBLAS_NUM_THREADS", os.environ.get("OPENBLAS_NUM_THREADS", "1"))
        # For processes that tests start: this checkout, installed or not, and the words the tests share.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        forked_server.give_commands(os.environ)
        yield


def _move_home(home: Path, patch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    patch.setenv("MLXOPS_CACHE", str(own_cache(home / "mlxops-cache")))
    patch.setenv("HF_HOME", str(home / "huggingface"))


@pytest.fixture(autouse=True)
def _own_folders(
    request: pytest.FixtureRequest, _base: Path, _environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Home, caches and the current folder are the test's own; what it does to the environment ends with it."""
    before = dict(os.environ)
    number = next(_numbers)
    home, project = _base / f"home{number}", _base / f"project{number}"
    project.mkdir()
    _move_home(home, monkeypatch)
    monkeypatch.chdir(project)
    yield
    monkeypatch.undo()
    # pytest itself says there where it is
    if {**os.environ, _WHERE: before[_WHERE]} != before:
        os.environ.clear()
        os.environ.update(before)
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(project, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """A connection to any other machine fails the test; this one's own sockets work."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address!r}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture
def mlxops(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`mlx-toolkit`, run in this process: `code, out, err = mlxops("lora m --iters abc")`.

    Another namespace than the toolkit's own goes in as `namespace`.
    """

    def run(command: str, *, namespace: Any = None) -> Ended:
        code = run_here(command, monkeypatch, namespace=namespace)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def inv() -> Callable[..., Ended]:
    """The real `inv`, in a process of its own and below a folder with a `tasks.py`: `code, out, err = inv("runs")`."""

    def run(command: str, *, tasks: str = _TASKS, environment: dict[str, str] | None = None) -> Ended:
        file = Path("tasks.py")
        if not any((folder / file).exists() for folder in [Path.cwd(), Path.cwd().parent]):
            file.write_text(tasks, encoding="utf-8")
        return run_python("-m", "invoke", *shlex.split(command), environment=environment)

    return run
