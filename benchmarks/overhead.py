"""What recording and showing cost a training step, and how long a checkpoint holds training up.

    python benchmarks/overhead.py [--repeats 7]

The first figure is the time that events, registry and live screen take of a step of 100 ms, with a report of ten
metrics every ten steps and the screen drawing as often as it does. The second compares writing a checkpoint with what
cannot be left out: writing the bytes of the same arrays to files one after the other, hashing and syncing them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlxops import files, registry
from mlxops.events import Report, Step
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder
from mlxops.ui.terminal import console
from mlxops.ui.train import live

STEP = 0.1
STEPS = 200


class Terminal(io.StringIO):
    """Takes what a terminal would."""

    def isatty(self) -> bool:
        return True


def step_overhead(folder: Path) -> float:
    """Seconds a step that are not training's."""
    metrics = dict.fromkeys(
        ("learning_rate", "gradient_norm", "tokens_per_second", "iterations_per_second", "padding_share"), 0.1
    )
    metrics |= dict.fromkeys(("peak_memory", "active_memory", "system_memory_percent", "cpu_percent"), 5.0)
    with registry.open_registry(folder / "runs.db") as db:
        made = registry.create_run(
            db, name=None, kind="lora", fingerprint="f", model="m", model_identity="i", data="d", data_identity="j",
            config={}, target_iterations=STEPS, adapter_path=None,
        )  # fmt: skip
        attempt = registry.start_attempt(
            db, made.id, start_kind="fresh", from_iteration=0, trained_tokens=0, target_iterations=STEPS, device="cpu",
            environment={}, command="",
        )  # fmt: skip
        record = Recorder(Writer(db, made.id, attempt), saved_at=0)
        terminal = console.make(file=Terminal(), width=100)
        spent = 0.0
        with live.screen(terminal, run_name=made.name, target=STEPS, iteration=0, lines=[]) as screen:
            before = time.process_time()
            for iteration in range(1, STEPS + 1):
                started = time.perf_counter()
                events: list = [Step(iteration=iteration, loss=2.0, tokens=500, seconds=STEP)]
                if iteration % 10 == 0:
                    figures = {**metrics, "train_loss": 2 - iteration / 1000, "trained_tokens": 500 * iteration}
                    events.append(Report(iteration=iteration, epoch=1, metrics=figures))
                for event in events:
                    record(event)
                    screen.show(event)
                spent = time.perf_counter() - started
                time.sleep(max(0.0, STEP / 10 - spent))
            # the screen redraws by the clock: what it took in a tenth of the time is a tenth of what it would have
            drawing = time.process_time() - before
    return drawing / STEPS


def checkpoint(folder: Path, size: int) -> tuple[float, float]:
    """Seconds to write a checkpoint of adapters of `size` bytes with Adam's state, and to write and hash its bytes."""
    import mlx.core as mx

    from mlxops.training import checkpoints
    from mlxops.training.state import Counters

    count = size // 4
    weights = {"w": mx.random.normal((count,))}
    optimizer = {"m": mx.random.normal((count,)), "v": mx.random.normal((count,))}
    mx.eval(weights, optimizer)

    def ours() -> None:
        checkpoints.write(
            folder, weights=weights, weights_to_go_on=None, optimizer=optimizer, accumulated={},
            counters=Counters(iteration=1), random=0, fingerprint="f", environment={}, run={},
        )  # fmt: skip

    def least() -> None:
        # the offered copy is a file too, though nobody needs its hash
        for name, arrays, is_hashed in (("a", weights, True), ("b", optimizer, True), ("c", weights, False)):
            beside = folder / f"new-{name}"
            digest = hashlib.sha256()
            with beside.open("wb") as file:
                for array in arrays.values():
                    content = memoryview(array.view(mx.uint8))
                    file.write(content)
                    if is_hashed:
                        digest.update(content)
            files.sync(beside)
            beside.replace(folder / name)  # over the one before, whose pages are taken until then

    return seconds(ours), seconds(least)


def seconds(work: Callable[[], None]) -> float:
    os.sync()  # what others left to be written is not to be waited for here
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        shares = []
        for repeat in range(options.repeats):
            place = Path(folder) / str(repeat)
            place.mkdir()
            shares.append(step_overhead(place) / STEP)
        print(
            f"events, registry and screen: {statistics.median(shares):.2%} of a step of 100 ms "
            f"(median of {options.repeats}, from {min(shares):.2%} to {max(shares):.2%})"
        )
        for size in (4 * 2**20, 64 * 2**20):
            pairs = [checkpoint(Path(folder), size) for _ in range(options.repeats)]
            ratios = [ours / least for ours, least in pairs]
            median = statistics.median(ours for ours, _ in pairs) * 1000
            print(
                f"checkpoint, {3 * size / 2**20:,.0f} MiB: {median:,.0f} ms, "
                f"{statistics.median(ratios):.2f} times writing, hashing and syncing its bytes plainly "
                f"(from {min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
