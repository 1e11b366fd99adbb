"""What listing checkpoints costs: prints the ratio to bare `inv`, and the speed of verifying; ends with 1 where missed.

python benchmarks/checkpoints.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from startup import seconds

from mlxops import registry
from mlxops.layout import adapter_name, state_name

RUNS, CHECKPOINTS = 50, 20


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="runs of each command")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        project, large = Path(folder) / "project", Path(folder) / "large"
        fill(project, RUNS, CHECKPOINTS, 4_000)
        fill(large, 1, 4, 128_000_000)
        commands = {
            "inv": [],
            "inv checkpoints": ["checkpoints"],
            "inv checkpoints --json": ["checkpoints", "--json"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, words in commands.items():
                times[name].append(seconds(words, project))
        middle = {name: statistics.median(each) for name, each in times.items()}
        plain = statistics.median(hash_plainly(large) for _ in range(3))
        start = middle["inv"]
        verified = statistics.median(seconds(["checkpoints", "--verify"], large) for _ in range(3)) - start
    for name, each in middle.items():
        print(f"{name:30} {each * 1e3:7.0f} ms")
    bounds = [
        (f"inv checkpoints / inv, {RUNS * CHECKPOINTS:,} checkpoints", middle["inv checkpoints"] / start, 4.0),
        ("verifying 1 GB / reading and hashing it plainly", verified / plain, 1.5),
    ]
    for name, ratio, bound in bounds:
        print(f"{name:52} {ratio:5.2f} (bound {bound}) {'' if ratio <= bound else 'MISSED'}")
    return int(any(ratio > bound for _, ratio, bound in bounds))


def fill(project: Path, runs: int, checkpoints: int, size: int) -> None:
    """A project with runs, their folders and their rows; each checkpoint has two files of about `size` bytes."""
    project.mkdir()
    (project / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    content = arrays(size)
    sha256 = hashlib.sha256(content).hexdigest()
    with registry.open_registry(project / "runs.db") as db:
        for number in range(runs):
            made = registry.create_run(
                db,
                name=f"run-{number}",
                kind="lora",
                fingerprint=str(number),
                model="models/tiny",
                model_identity="m",
                data="data",
                data_identity="d",
                config={},
                target_iterations=checkpoints * 100,
                adapter_path=None,
            )
            folder = project / made.adapter_path
            folder.mkdir(parents=True)
            for iteration in range(100, checkpoints * 100 + 1, 100):
                for name in (adapter_name(iteration), state_name(iteration)):
                    (folder / name).write_bytes(content)
                registry.add_checkpoint(
                    db,
                    made.id,
                    None,
                    iteration=iteration,
                    adapter_file=adapter_name(iteration),
                    state_file=state_name(iteration),
                    bytes=2 * len(content),
                    adapter_sha256=sha256,
                    state_sha256=sha256,
                    train_loss=2.0,
                    validation_loss=2.0 + 1 / iteration,
                )


def arrays(size: int) -> bytes:
    """A safetensors file with one array."""
    header = json.dumps({"weights": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def hash_plainly(project: Path) -> float:
    """How long hashing every checkpoint takes with nothing around it."""
    started = time.perf_counter()
    for path in project.glob("adapters/*/*.safetensors"):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
