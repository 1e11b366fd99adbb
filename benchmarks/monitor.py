"""What watching costs: a frame over a large registry, and a training that five monitors look at.

    python benchmarks/monitor.py [--points 10000000] [--frames 30] [--pairs 40] [--seconds 60]

A frame is all of it: asking whether something changed, the rows, the drawing and its characters. Before each frame a
report is written, so that none is a repeated one. Its processor time is told beside the time on the clock, which others
at work on the machine lengthen. The second part opens five monitors, each in a terminal of its own, while a training
keeps all processors busy: it takes the share of the processors that they use, and compares the steps of a training that
reports every second with the same while the five are stopped, in turns of 2.5 seconds. Ends with 1 where a bound does
not hold.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import registry as filling  # benchmarks/registry.py

from mlxops import registry
from mlxops.events import Report
from mlxops.jobs.train.monitor import Watch
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder
from mlxops.ui.terminal import console
from mlxops.ui.train import monitor

FRAME_BOUND = 50.0  # ms
SHARE_BOUND = 0.5  # % of a step
MONITORS = 5
STEP = 0.1  # seconds
HALF = 2.5  # seconds of a pair that are watched, and as many that are not


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000_000, help="points of the large registry")
    parser.add_argument("--frames", type=int, default=30, help="frames of each size")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of five seconds, half of each watched")
    parser.add_argument("--processors", type=int, default=psutil.cpu_count(), help="processors a step keeps busy")
    parser.add_argument("--seconds", type=int, default=60, help="of watching without a break")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the monitors would be left behind
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        fill(path, options.points)
        print(f"{options.points:,} points of {filling.RUNS:,} runs, {path.stat().st_size / 1e6:,.0f} MB")
        for width, height in ((80, 24), (120, 40), (200, 60)):
            first, times, busy = frames(path, width, height, options.frames)
            median = statistics.median(times)
            missed |= median > FRAME_BOUND
            print(
                f"a frame of {width} x {height}: {median:.1f} ms (median of {len(times)}, {min(times):.1f} to "
                f"{max(times):.1f}; {statistics.median(busy):.1f} of processor; the first {first:.1f}; "
                f"bound {FRAME_BOUND:g})"
            )
        taken = taken_by_monitors(path, options.seconds, options.processors)
        missed |= taken > SHARE_BOUND
        print(
            f"{MONITORS} monitors take {taken:.2f} % of all {psutil.cpu_count()} processors while a training keeps "
            f"{options.processors} busy (over {options.seconds} s; bound {SHARE_BOUND:g})"
        )
        ratios, recording = watched(path, options.pairs, options.processors)
        share, lowest, highest = ((ratio - 1) * 100 for ratio in (statistics.median(ratios), *interval(ratios)))
        in_recording = (recording[1] - recording[0]) / (10 * STEP) * 100
        missed |= lowest > SHARE_BOUND or in_recording > SHARE_BOUND
        print(
            f"{MONITORS} monitors, recording: a report takes {recording[0] * 1e6:,.0f} µs alone and "
            f"{recording[1] * 1e6:,.0f} µs watched, {in_recording:+.3f} % of its ten steps (bound {SHARE_BOUND:g})"
        )
        print(
            f"{MONITORS} monitors, computing: a step takes {share:+.2f} % (median of {len(ratios)} pairs, 95 % within "
            f"{lowest:+.2f} to {highest:+.2f}; bound {SHARE_BOUND:g}"
            f"{', not decided: others are at work on this machine' if lowest <= SHARE_BOUND < highest else ''})"
        )
    return int(missed)


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median, from the ranks of the values (binomial, in its normal approximation)."""
    ordered = sorted(values)
    low = max(int((len(ordered) - 1.96 * len(ordered) ** 0.5) / 2), 0)
    return ordered[low], ordered[-1 - low]


def fill(path: Path, points: int) -> None:
    """1,000 runs, 100 of them with all the points; all have ended but one long run, which is at work here."""
    long_runs = min(100, filling.RUNS)
    filling.fill(path, long_runs, points // long_runs // len(filling.NAMES))
    with registry.open_registry(path) as db, db.transaction() as connection:
        connection.execute("UPDATE attempts SET ended_at = heartbeat_at, end_reason = 'finished'")
        connection.execute("UPDATE runs SET status = 'completed', iteration = target_iterations")


def begin(db: registry.Registry) -> tuple[int, int]:
    """The first run continues in this process; its last iteration and its attempt."""
    (row,) = db.rows("SELECT max(last_iteration) AS last FROM series WHERE run_id = 1")
    attempt = registry.start_attempt(
        db, 1, start_kind="exact", from_iteration=row["last"], trained_tokens=0, target_iterations=10_000_000,
        device="cpu", environment={}, command="",
    )  # fmt: skip
    return row["last"], attempt


def report(iteration: int) -> Report:
    """Ten metrics as training reports them."""
    figures = dict.fromkeys(filling.NAMES, 0.5) | {"trained_tokens": iteration * 500.0}
    return Report(iteration=iteration, epoch=1, metrics=figures | {"train_loss": 2 + 1 / iteration})


def frames(path: Path, width: int, height: int, count: int) -> tuple[float, list[float], list[float]]:
    """Milliseconds of the first frame of a monitor just opened, of those after it, and their processor time."""
    invocation = Invocation(project=Project(root=path.parent, cwd=path.parent, registry_path=path))
    with registry.open_registry(path) as db, Watch(invocation) as watch:
        iteration, attempt = begin(db)
        record = Recorder(Writer(db, 1, attempt), saved_at=0)

        def frame() -> None:
            watch.changed()
            screen = console.make(file=io.StringIO(), width=width)
            drawn = monitor.render(
                watch.state(), watch.machine(), width=width, height=height, now=datetime.now(UTC), unicode=True
            )
            screen.print(drawn)

        first = filling.seconds(frame) * 1000
        times, busy = [], []
        for number in range(1, count + 1):
            record(report(iteration + number))
            before = time.process_time()
            times.append(filling.seconds(frame) * 1000)
            busy.append((time.process_time() - before) * 1000)
        registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=iteration + count)
    return first, times, busy


def taken_by_monitors(path: Path, seconds: float, processors: int) -> float:
    """The share of all processors, in percent, that the monitors take from a training: the most it can lose to them."""
    with registry.open_registry(path) as db, monitors(path, MONITORS) as processes:
        iteration, attempt = begin(db)
        record = Recorder(Writer(db, 1, attempt), saved_at=0)
        step = steps_of(processors)
        for _ in range(20):  # the first frames, and until they have seen that the processors are busy
            step()
        before, begun = cpu_seconds(processes), time.monotonic()
        while time.monotonic() - begun < seconds:
            for _ in range(10):
                step()
            iteration += 10
            record(report(iteration))
        return (cpu_seconds(processes) - before) / (time.monotonic() - begun) / psutil.cpu_count() * 100


def watched(path: Path, pairs: int, processors: int) -> tuple[list[float], tuple[float, float]]:
    """Step times watched over step times alone, and the seconds of a report alone and watched.

    Half of the pairs begin with the monitors, which draw at once when they continue and so more often than they would.
    """
    ratios: list[float] = []
    reports: dict[bool, list[float]] = {False: [], True: []}
    with registry.open_registry(path) as db, monitors(path, MONITORS) as processes:
        iteration, attempt = begin(db)
        record = Recorder(Writer(db, 1, attempt), saved_at=0)
        step = steps_of(processors)
        for pair in range(pairs):
            seconds: dict[bool, float] = {}
            for is_watched in (pair % 2 == 0, pair % 2 == 1):
                # stopped and not closed: the two halves of a pair must lie close together where others work too
                for process in processes:
                    process.resume() if is_watched else process.suspend()
                begun = time.monotonic()
                times: list[float] = []
                while (taken := time.monotonic() - begun) < HALF:
                    times.append(filling.seconds(step))
                    if len(times) % 10 == 1:
                        iteration += 10
                        reports[is_watched].append(filling.seconds(lambda at=iteration: record(report(at))))
                seconds[is_watched] = taken / len(times)
            ratios.append(seconds[True] / seconds[False])
    return ratios, (statistics.median(reports[False]), statistics.median(reports[True]))


def steps_of(processors: int) -> Callable[[], None]:
    """Work of about 100 ms that keeps so many processors busy, as a training step does."""
    import numpy

    matrix = numpy.random.default_rng(0).normal(size=(256, 256)).astype(numpy.float32)

    def multiply(times: int) -> None:
        for _ in range(times):
            matrix @ matrix

    begun = time.perf_counter()
    multiply(50)
    times = max(1, int(50 * STEP / (time.perf_counter() - begun)))

    def step() -> None:
        threads = [threading.Thread(target=multiply, args=(times,)) for _ in range(processors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return step


@contextmanager
def monitors(path: Path, count: int) -> Iterator[list[psutil.Process]]:
    """So many monitors, each in a terminal of 120 x 40 whose characters are read as a terminal reads them."""
    opened = []
    environment = os.environ | {"MLXOPS_DB": str(path), "TERM": "xterm-256color"}
    for _ in range(count):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "mlxops", "monitor"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=path.parent,
            env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        seen = threading.Event()
        reader = threading.Thread(target=read, args=(ours, seen), daemon=True)
        reader.start()
        opened.append((process, ours, reader, seen))
    for _, _, _, seen in opened:
        seen.wait()
    try:
        yield [psutil.Process(process.pid) for process, *_ in opened]
    finally:
        for process, ours, reader, _ in opened:
            process.send_signal(signal.SIGCONT)
            os.write(ours, b"q")
            process.wait()
            reader.join()
            os.close(ours)


def read(file: int, seen: threading.Event, shown: bytes = b"smooth") -> None:
    """Take what a screen draws until it ends; `seen` is set once a frame with these words is there, or the end."""
    last = b""
    try:
        while drawn := os.read(file, 65536):
            if shown in last + drawn:
                seen.set()
            last = drawn
    except OSError:
        pass
    seen.set()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Processor time that they have taken."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
