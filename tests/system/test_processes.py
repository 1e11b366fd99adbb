"""What tells one process from all others, where the system has no ticks since its start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import mac
import psutil

from mlxops.system import processes


def test_the_start_of_a_process_is_the_one_the_kernel_noted(a_mac: mac.Mac) -> None:
    before = processes.start_of(os.getpid())
    a_mac.say("clock", "86400")

    assert before is not None
    assert processes.start_of(os.getpid()) == before
    assert float(before) != psutil.Process().create_time()


def test_a_process_that_is_gone_or_a_zombie_has_no_start(a_mac: mac.Mac) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = processes.start_of(child.pid)

    assert (zombie, processes.start_of(child.pid), processes.namespace()) == (None, None, None)


def test_without_descriptors_of_processes_a_signal_goes_by_the_id(a_mac: mac.Mac) -> None:
    with subprocess.Popen(["sleep", "100"]) as child, processes.opened(child.pid) as descriptor:
        processes.send(child.pid, descriptor, signal.SIGTERM)
        processes.wait_for_end(descriptor)

    assert (descriptor, child.returncode) == (None, -15)
