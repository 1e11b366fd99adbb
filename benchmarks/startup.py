"""What a command costs before it does anything: prints ratios of interleaved runs, ends with 1 where a bound is broken.

python benchmarks/startup.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from registry import fill

ROOT = Path(__file__).resolve().parent.parent
EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each command")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        empty, project = Path(folder) / "empty", Path(folder) / "project"
        empty.mkdir()
        project.mkdir()
        (empty / "tasks.py").write_text(EMPTY)
        (project / "tasks.py").write_text("from mlxops.tasks import namespace\n")
        fill(project / "runs.db", 1000, 100)  # with the ten names of a report: a million points
        commands = {
            "inv --list, empty tasks.py": (["--list"], empty),
            "inv --list": (["--list"], project),
            "inv": ([], project),
            "inv runs": (["runs"], project),
            "inv runs --limit 1000": (["runs", "--limit", "1000"], project),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, (words, place) in commands.items():
                times[name].append(seconds(words, place))
    middle = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds_ in middle.items():
        print(f"{name:30} {seconds_ * 1e3:7.0f} ms")
    bounds = [
        ("inv --list / empty tasks.py", middle["inv --list"] / middle["inv --list, empty tasks.py"], 1.4),
        ("inv runs / inv, 1,000 runs, 1,000,000 points", middle["inv runs"] / middle["inv"], 4.0),
    ]
    for name, ratio, bound in bounds:
        print(f"{name:48} {ratio:5.2f} (bound {bound}) {'' if ratio <= bound else 'MISSED'}")
    return int(any(ratio > bound for _, ratio, bound in bounds))


def seconds(words: list[str], place: Path) -> float:
    """How long `inv` takes with these words in this folder."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
