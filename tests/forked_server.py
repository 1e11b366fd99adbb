"""The server that processes of tests are forked from: it has loaded all that a command needs, and computed nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

from commands import CACHE, ROOT

_environment: dict[str, str] = {}
_starting = threading.Lock()


def hear_signals() -> None:
    """Have this process hear signals as one from a shell does: the session's own may be ignored, as under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def give_commands(environment: Mapping[str, str]) -> None:
    """Have commands that are started from now on begin with this environment.

    Without it they have that of whichever test was the first to start one.
    """
    _environment.update(environment)


def forks(
    is_fork_safe: bool = sys.platform != "darwin",
) -> multiprocessing.context.ForkServerContext | multiprocessing.context.SpawnContext:
    """What starts processes that are forked from a server which has loaded all that a command needs.

    Where a fork is not safe each process loads it itself: Metal's connection to the GPU does not survive one.
    """
    if not is_fork_safe:
        return multiprocessing.get_context("spawn")
    with _starting:
        return _server()


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_imports"])
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(_environment or before)
    # a server does not import from where its parent does
    os.environ |= {"PYTHONPATH": f"{Path(__file__).parent}:{ROOT}", "MLXOPS_CACHE": str(CACHE)}
    # BLAS threads that wait for a core spin, which makes these tiny products ten times slower on a busy machine
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context
