"""What the live screen of `status` costs: the share of one processor that it takes while it is left alone.

    python benchmarks/status.py [--seconds 60] [--refresh 2] [--points 1000000]

It watches a project of 1,000 runs, one of which reports every second, and three models, in a terminal of 120 x 40. What
it starts (nvidia-smi) counts as its own; the start does not, which every command has. Ends with 1 where the bound does
not hold.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import monitor  # benchmarks/monitor.py
import psutil

from mlxops import registry
from mlxops.models.tiny import make_tiny
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder

BOUND = 2.0  # % of one processor
SETTLING = 5.0  # seconds of the first screens
PAUSE = 1.0  # seconds between two reports


def main() -> int:
    """Measure, print, compare with the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of watching")
    parser.add_argument("--refresh", type=float, default=2, help="seconds between two looks")
    parser.add_argument("--points", type=int, default=1_000_000, help="points of the registry")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        monitor.fill(path, options.points)
        for number in range(3):
            make_tiny(Path(folder) / "models" / f"tiny-{number}")
        share = watched(path, options.seconds, options.refresh)
    print(
        f"status --live --refresh {options.refresh:g} takes {share:.2f} % of one processor "
        f"(over {options.seconds:g} s; bound {BOUND:g} at 2 s)"
    )
    return int(share > BOUND)


def watched(path: Path, seconds: float, refresh: float) -> float:
    """The share of one processor, in percent, that it takes while the first run reports every second."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "mlxops", "status", "--live", "--refresh", str(refresh)]
    environment = os.environ | {"MLXOPS_DB": str(path), "TERM": "xterm-256color"}
    with registry.open_registry(path) as db:
        iteration, attempt = monitor.begin(db)
        record = Recorder(Writer(db, 1, attempt), saved_at=0)
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=path.parent, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        seen = threading.Event()
        reader = threading.Thread(target=monitor.read, args=(ours, seen, b"models"), daemon=True)
        reader.start()
        try:
            seen.wait()  # what is typed before it listens is lost
            time.sleep(SETTLING)
            watched_process = psutil.Process(process.pid)
            before, begun = sum(watched_process.cpu_times()[:4]), time.monotonic()
            while time.monotonic() - begun < seconds:
                time.sleep(PAUSE)
                iteration += 10
                record(monitor.report(iteration))
            return (sum(watched_process.cpu_times()[:4]) - before) / (time.monotonic() - begun) * 100
        finally:
            os.write(ours, b"q")
            process.wait()
            reader.join()
            os.close(ours)


if __name__ == "__main__":
    sys.exit(main())
