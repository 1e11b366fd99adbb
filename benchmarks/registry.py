"""What the registry costs: prints a line for each bound of db/README.md, and ends with 1 where one does not hold.

python benchmarks/registry.py [--points 10000000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlxops import registry

RUNS = 1000
NAMES = (
    "train_loss", "learning_rate", "gradient_norm", "tokens_per_second", "iterations_per_second", "trained_tokens",
    "padding_share", "peak_memory", "active_memory", "system_memory_percent",
)  # fmt: skip

_LAST_AND_BEST = """
    SELECT name, status, iteration, train_loss, validation_loss, best_validation_loss, best_iteration, created_at
    FROM run_summary
    ORDER BY id DESC
"""


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000_000, help="points of the large table")
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as folder:
        bounds = [
            *writing(Path(folder) / "writing.db"),
            *reading(Path(folder) / "million.db", 1_000_000),
            *reading(Path(folder) / "large.db", points),
        ]
    for what, measured, bound, unit in bounds:
        print(f"{what:58} {measured:10,.1f} {unit:5} (bound {bound:,g}) {'' if measured <= bound else 'MISSED'}")
    return int(any(measured > bound for _, measured, bound, _ in bounds))


def writing(path: Path) -> list[tuple[str, float, float, str]]:
    """One report of ten metrics, one validation and one event, each a transaction."""
    with registry.open_registry(path) as db:
        run, attempt = start(db)
        reports = [
            seconds(
                lambda iteration=iteration: registry.record_report(
                    db,
                    run,
                    attempt,
                    iteration=iteration,
                    epoch=1,
                    trained_tokens=iteration * 1000,
                    metrics={name: 1.0 / iteration + place for place, name in enumerate(NAMES)},
                )
            )
            for iteration in range(1, 20_001)
        ]
        validations = [
            seconds(
                lambda iteration=iteration: registry.record_validation(
                    db, run, attempt, iteration=iteration, loss=2.0 / iteration, standard_error=0.01
                )
            )
            for iteration in range(1, 2_001)
        ]
    report = sorted(reports)
    return [
        ("a report of 10 metrics, median", statistics.median(report) * 1e6, 100, "µs"),
        ("a report of 10 metrics, 99 of 100", report[len(report) * 99 // 100] * 1e6, 10_000, "µs"),
        ("a validation, median", statistics.median(validations) * 1e6, 100, "µs"),
        ("a point on disk, written report by report", path.stat().st_size / (len(NAMES) * 20_000), 30, "bytes"),
    ]


def reading(path: Path, points: int) -> list[tuple[str, float, float, str]]:
    """The questions that lists, pages and monitors ask of 1,000 runs: equal ones, or 100 that have all the points."""
    long_runs = RUNS if points <= 1_000_000 else 100
    length = points // long_runs // len(NAMES)
    fill(path, long_runs, length)
    size = f"{points:,} points"
    run = long_runs // 2
    with registry.open_registry(path) as db:
        last_and_best = median(lambda: db.rows(_LAST_AND_BEST))
        listed = median(lambda: registry.list_runs(db))
        decided = median(lambda: registry.candidate_runs(db))
        thinned = median(lambda: registry.metric_series(db, run, "train_loss", buckets=500))
    cold = []
    for run_id in range(10, 90, 10):
        forget(path)
        with registry.open_read_only(path) as db:
            cold.append(seconds(lambda db=db, run_id=run_id: registry.metric_series(db, run_id, "train_loss")))
    return [
        (f"{size}: last and best values of {RUNS:,} runs", last_and_best * 1e3, 10, "ms"),
        (f"{size}: the same runs with every column", listed * 1e3, 30, "ms"),
        (f"{size}: the runs a decision looks at", decided * 1e3, 50, "ms"),
        (f"{size}: a {length:,}-point series, cold", statistics.median(cold) * 1e3, 20, "ms"),
        (f"{size}: the same in 500 ranges, warm", thinned * 1e3, 20, "ms"),
        (f"{size}: a point on disk", path.stat().st_size / points, 30, "bytes"),
    ]


def fill(path: Path, long_runs: int, length: int) -> None:
    """Make 1,000 runs with one attempt and ten curves each, short ones after the long; written in bulk.

    Points come one by one in training, which would take hours here.
    """
    with registry.open_registry(path) as db:
        for number in range(RUNS):
            start(db, f"run-{number}")
        for name in NAMES:
            registry.record_report(db, 1, None, iteration=0, epoch=0, trained_tokens=0, metrics={name: 0.0})
        with db.transaction() as connection:
            connection.execute("DELETE FROM metrics")
            connection.execute(
                """
                WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < :length)
                INSERT INTO metrics
                SELECT runs.id, name_id, number, abs(random() % 1000000) / 1e5, number * 100
                FROM runs CROSS JOIN (SELECT name_id FROM series WHERE run_id = 1) CROSS JOIN step
                WHERE runs.id <= :long_runs OR number <= 10
                ORDER BY 1, 2, 3
                """,
                {"length": length, "long_runs": long_runs},
            )
            connection.execute("DELETE FROM series")
            connection.execute(
                """
                INSERT INTO series
                SELECT run_id, name_id, count(*), 0, min(iteration), max(iteration), 1.0, max(elapsed_ms),
                    min(value), 1, max(value), 1
                FROM metrics
                GROUP BY run_id, name_id
                """
            )
            connection.execute("UPDATE runs SET iteration = 10, status = 'completed' WHERE id % 2")


def start(db: registry.Registry, name: str | None = None) -> tuple[int, int]:
    """A run with an attempt at work."""
    run = registry.create_run(
        db,
        name=name,
        kind="lora",
        fingerprint="f" * 64,
        model="models/SmolLM2-135M-Instruct",
        model_identity="m" * 64,
        data="data",
        data_identity="d" * 64,
        config={f"setting_{number}": number for number in range(40)},
        target_iterations=100_000,
        adapter_path=None,
        tags=["benchmark"],
    )
    attempt = registry.start_attempt(
        db,
        run.id,
        start_kind="fresh",
        from_iteration=0,
        trained_tokens=0,
        target_iterations=100_000,
        device="cpu",
        environment={"versions": {"mlx": "0.32.4"}, "threads": 2},
        command="inv lora",
    )
    return run.id, attempt


def forget(path: Path) -> None:
    """Ask the system to drop the file from its cache, so that the next read is cold."""
    file = os.open(path, os.O_RDONLY)
    if hasattr(os, "posix_fadvise"):
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def median(work: Callable[[], object], repeats: int = 15) -> float:
    """The median of a few calls."""
    return statistics.median(seconds(work) for _ in range(repeats))


if __name__ == "__main__":
    sys.exit(main())
