"""The emulated Mac is one, here and in the processes that are started: what tests on it say would else be of Linux."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import stat
import sys
from pathlib import Path

import mac
import psutil
import pytest
from commands import run_python

from mlxops import system
from mlxops.system import host

PROGRAM = """
import json, os, select, signal, fcntl
from pathlib import Path
from mlxops import system
from mlxops.system import host
print(json.dumps([system.NAME, system.ON_LINUX, host.boot_id(), host.name(), host.kernel(), host.cpu_model(),
    hasattr(os, "pidfd_open"), hasattr(signal, "pidfd_send_signal"), hasattr(os, "sched_getaffinity"),
    Path("/proc/self/stat").exists(), fcntl.F_FULLFSYNC]))
"""


def test_a_process_that_is_started_is_on_the_mac_too(a_mac: mac.Mac) -> None:
    code, out, err = run_python("-c", PROGRAM)

    there = ["darwin", False, mac.BOOT, "ibis.local", "Darwin 24.1.0", "Apple M3 Max", False, False, False, False, 51]
    assert (code, err) == (0, "")
    assert json.loads(out) == there
    assert [system.NAME, system.ON_LINUX, host.boot_id(), host.name(), host.kernel(), host.cpu_model()] == there[:6]


def test_its_disk_refuses_to_sync_unless_told_otherwise(a_mac: mac.Mac, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
            fcntl.fcntl(file, mac.F_FULLFSYNC)
        a_mac.say("fullfsync", "works")
        assert fcntl.fcntl(file, mac.F_FULLFSYNC) == 0


def test_its_poll_watches_nothing_for_an_empty_mask(a_mac: mac.Mac) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    watched, unwatched = select.poll(), select.poll()
    watched.register(writing, select.POLLOUT)
    unwatched.register(writing, 0)

    assert (len(watched.poll(0)), unwatched.poll(0)) == (1, [])
    os.close(writing)


def test_its_clock_moves_start_times_and_a_file_can_be_hidden(a_mac: mac.Mac, tmp_path: Path) -> None:
    before = psutil.Process().create_time()
    a_mac.say("clock", "3600")
    (tmp_path / "file").touch()
    a_mac.hide(tmp_path / "file")

    assert psutil.Process().create_time() == before + 3600
    assert (tmp_path / "file").lstat().st_flags == stat.UF_HIDDEN
    assert not hasattr(a_mac.folder.lstat(), "st_flags")


def test_two_spellings_are_one_folder_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "Foo").mkdir()
    (tmp_path / "Foo" / "file").touch()

    with mac.one_folder(tmp_path / "Foo", tmp_path / "foo"):
        assert os.path.samestat((tmp_path / "foo").stat(), (tmp_path / "Foo").stat())
        assert (tmp_path / "foo" / "file").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["Foo"]


def test_afterwards_this_is_no_mac(tmp_path: Path) -> None:
    assert (system.NAME, hasattr(fcntl, "F_FULLFSYNC")) == (sys.platform, sys.platform == "darwin")
    assert signal.SIGKILL in signal.valid_signals()
