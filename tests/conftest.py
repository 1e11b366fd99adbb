"""What every test stands on: folders of its own, no network, and the two programs as a person types them."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import FAULTS, ROOT, Ended, count_faults, run_python

from mlxops.projects import machine

pytest_plugins = ["tiny_models", "tuned_projects"]

# Read at import: afterwards every test has a cache of its own.
_KERNELS = machine.user_cache() / "kernels"
_TASKS = "from mlxops.tasks import namespace\n"
_OURS = ("MLXOPS_DB", "MLXOPS_BLAS", "MLXOPS_DEBUG", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "INVOKE_RUNTIME_CONFIG")


# A shell's `&` and `nohup` start a command with these ignored, and whatever it starts inherits that: what is under test
# would not hear the Ctrl-C or the hang-up that a test sends.
for _each, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, _usual)


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


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Home, caches and the current folder are the test's own; what it does to the environment ends with it."""
    before = dict(os.environ)
    home, project = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project")
    for name in _OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("MLXOPS_CACHE", str(home / "mlxops-cache"))
    # What MLX compiles is compiled once a machine, as a user has it.
    _KERNELS.mkdir(parents=True, exist_ok=True)
    (home / "mlxops-cache").mkdir()
    (home / "mlxops-cache" / "kernels").symlink_to(_KERNELS)
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Answers after a training take as long as a small training; the tests of them delete this.
    settings = home / "settings.yaml"
    settings.write_text("mlxops: {samples: 0}\n")
    monkeypatch.setenv("INVOKE_RUNTIME_CONFIG", str(settings))
    # Two threads that spin for tiny matrices take many times as long where the machine has other work.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", os.environ.get("OPENBLAS_NUM_THREADS", "1"))
    # For processes that tests start: this checkout, installed or not, and the words the tests share.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.chdir(project)
    yield
    monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to any other machine fails the test; this one's own sockets work."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def mlxops(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`mlx-toolkit`, run in this process: `code, out, err = mlxops("lora m --iters abc")`.

    Another namespace than the toolkit's own goes in as `namespace`.
    """
    from mlxops.__main__ import Toolkit
    from mlxops.tasks import namespace as ours

    def run(command: str, *, namespace: Any = None) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mlx-toolkit", *shlex.split(command)])
        monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        code = 0
        try:
            Toolkit(name="mlx-toolkit", binary="mlx-toolkit", version="1", namespace=namespace or ours).run()
        except SystemExit as ended:
            code = int(ended.code or 0)
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
