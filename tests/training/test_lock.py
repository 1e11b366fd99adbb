"""One process works on a run; another is told which, and the lock ends with its holder."""

import signal
import subprocess
import sys

import pytest

from mlxops.errors import Busy
from mlxops.training import lock

HOLDER = {"pid": 4711, "host": "ibis", "since": "2026-01-02 03:04 UTC"}

# In a process of its own: a lock is held by a process, whatever it opens.
PROGRAM = """
import sys
from pathlib import Path
from mlxops.training import lock

with lock.hold(Path(sys.argv[1]), {holder!r}, what="the run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / lock.NAME


@pytest.fixture
def other(path):
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", PROGRAM.format(holder=HOLDER), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_nobody_holds_is_taken_and_given_back(path):
    assert not lock.is_held(path)
    with lock.hold(path, HOLDER, what="the run"):
        assert lock.is_held(path)
    assert not lock.is_held(path)


def test_whoever_comes_second_is_told_who_since_when_and_where(path, other):
    with pytest.raises(Busy) as busy, lock.hold(path, {"pid": 1}, what="the run 'heron'"):
        pass

    assert busy.value.message == (
        "the run 'heron' is being worked on by process 4711 on ibis since 2026-01-02 03:04 UTC"
    )
    assert (busy.value.exit_code, bool(busy.value.hint)) == (3, True)


def test_being_refused_leaves_the_holders_name_in_place(path, other):
    before = path.read_text()

    with pytest.raises(Busy), lock.hold(path, {"pid": 1}, what="the run"):
        pass

    assert path.read_text() == before
    assert lock.is_held(path)


def test_a_killed_holder_holds_nothing(path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()

    assert not lock.is_held(path)
    with lock.hold(path, {"pid": 1}, what="the run"):
        assert path.read_text() == '{"pid": 1}'


def test_told_to_wait_it_waits(path, other):
    other.stdin.close()

    with lock.hold(path, {"pid": 1}, what="the run", wait=True):
        assert other.wait() == 0


def test_a_lock_file_with_nonsense_in_it_still_refuses(path, other):
    path.write_bytes(b"\xff{")

    with pytest.raises(Busy, match="another process"), lock.hold(path, {}, what="the run"):
        pass


def test_a_failure_inside_gives_the_lock_back(path):
    with pytest.raises(ZeroDivisionError), lock.hold(path, HOLDER, what="the run"):
        1 / 0  # noqa: B018

    assert not lock.is_held(path)


def test_what_a_holder_adds_is_read_by_others_while_it_is_held(path):
    with lock.hold(path, HOLDER, what="the run"):
        lock.say(path, stopping="SIGTERM")

        assert lock.holder_of(path) == {**HOLDER, "stopping": "SIGTERM"}
        assert lock.is_held(path)


def test_a_new_holder_says_nothing_of_what_the_last_one_added(path):
    with lock.hold(path, HOLDER, what="the run"):
        lock.say(path, stopping="SIGTERM")
    with lock.hold(path, HOLDER, what="the run"):
        assert lock.holder_of(path) == HOLDER


def test_a_lock_that_is_gone_or_is_no_table_says_nothing(path):
    lock.say(path, stopping="SIGTERM")
    gone = lock.holder_of(path)
    path.write_text("[1]")

    assert (gone, lock.holder_of(path)) == ({}, {})
