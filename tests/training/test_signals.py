"""The first signal asks for a checkpoint, the second leaves; what was ignored stays ignored."""

import os
import signal
import subprocess
import sys

import pytest

from mlxops.training import signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# In a process of its own: a second signal ends it.
PROGRAM = """
import os, signal, sys, threading
from mlxops.training import signals

heard = threading.Event()
with signals.listen(on_first=lambda number: heard.set(), before_leaving=lambda: print("restored", flush=True)) as stop:
    os.kill(os.getpid(), signal.{first})
    heard.wait()
    print("asked by", stop.signal_number, flush=True)
    while True:  # those within an instant of the first are one request with it
        os.kill(os.getpid(), signal.{second})
"""


def hear(number: int) -> signals.StopRequest:
    """What a listener makes of a signal to this process."""
    import threading

    heard = threading.Event()
    with signals.listen(on_first=lambda _: heard.set()) as stop:
        assert not stop
        os.kill(os.getpid(), number)
        heard.wait()
    return stop


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_becomes_a_request_to_stop(number):
    stop = hear(number)

    assert stop
    assert stop.signal_number == number


@pytest.mark.parametrize("number", SIGNALS)
def test_the_handlers_from_before_are_put_back(number):
    before = signal.getsignal(number)

    hear(number)

    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SIGINT", "SIGINT"),
        pytest.param("SIGINT", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("SIGHUP", "SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_leaves_at_once_with_its_exit_code(first, second):
    program = PROGRAM.format(first=first, second=second)

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.returncode == 128 + signal.Signals[second]
    assert ended.stdout.split("\n") == [f"asked by {signal.Signals[first].value}", "restored", ""]
    assert ended.stderr == ""


def test_a_hang_up_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listen() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_signals_are_none_of_its_business():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with signals.listen() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_listening_can_begin_again():
    assert [hear(signal.SIGTERM).signal_number for _ in range(3)] == [signal.SIGTERM] * 3
