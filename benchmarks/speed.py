"""Trained tokens per second against `mlx_lm.lora`: the same model, rows, batch size and layers, one epoch each.

    python benchmarks/speed.py --model models/SmolLM2-135M-Instruct [--repeats 3] [--rows 48] [--layers 4]

Both sides run in processes of their own, in turn, with the same BLAS and prompts masked. The rows are the standard
library's docstrings as answers, which vary in length as real answers do. Tokens are counted alike on both sides: the
assistant's words with their end-of-turn token, once an epoch. Seconds are those of training steps, as each side
reports them, without loading and validation. Then both adapters are measured on the same validation rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = (
    *("argparse", "asyncio", "base64", "calendar", "collections", "csv", "ctypes", "datetime", "decimal", "difflib"),
    *("email", "fractions", "functools", "glob", "gzip", "heapq", "html", "inspect", "io", "itertools", "json"),
    *("logging", "math", "os", "pathlib", "pickle", "random", "re", "shutil", "socket", "sqlite3", "statistics"),
    *("string", "struct", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "time", "types", "uuid"),
)

SPEEDS = "select value from metric where name = 'iterations_per_second'"


def make_data(folder: Path, *, rows: int, validation_rows: int, longest: int) -> None:
    """Write train.jsonl and valid.jsonl of documented functions, classes and modules."""
    found: dict[str, str] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for member, value in [("", module), *inspect.getmembers(module)]:
            text = value.__doc__ if callable(value) or value is module else None
            if isinstance(text, str) and 20 < len(text) < longest and not member.startswith("_"):
                found.setdefault(text.strip(), f"{name}.{member}".strip("."))
    chosen = random.Random(0).sample(sorted(found.items()), rows + validation_rows)
    for file, part in (("train", chosen[:rows]), ("valid", chosen[rows:])):
        with (folder / f"{file}.jsonl").open("w", encoding="utf-8") as lines:
            for answer, name in part:
                turns = [
                    {"role": "user", "content": f"What is {name} in Python?"},
                    {"role": "assistant", "content": answer},
                ]
                lines.write(json.dumps({"messages": turns}) + "\n")


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def shared(options: argparse.Namespace, iterations: int) -> list[str]:
    return [
        *("--model", str(options.model.resolve()), "--data", "data", "--iters", str(iterations)),
        *("--batch-size", str(options.batch), "--num-layers", str(options.layers), "--mask-prompt"),
        *("--steps-per-report", "1", "--steps-per-eval", "1000000", "--val-batches", "1", "--save-every", "1000000"),
        *("--learning-rate", "1e-4", "--max-seq-length", "2048"),
    ]


def train_with_mlx_lm(options: argparse.Namespace, folder: Path, iterations: int) -> tuple[float, Path]:
    peer = str(Path(__file__).with_name("mlx_lm_peer.py").resolve())
    out = run([sys.executable, peer, *shared(options, iterations), "--train", "--adapter-path", "theirs"], folder)
    reports = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    seconds = sum(1 / each["train"]["iterations_per_second"] for each in reports if "train" in each)
    return seconds, folder / "theirs"


def train_with_mlxops(options: argparse.Namespace, folder: Path, iterations: int) -> tuple[float, Path]:
    run(
        [sys.executable, "-m", "mlxops", "lora", *shared(options, iterations), "--adapter-path", "ours", "--new"],
        folder,
    )
    rows = json.loads(
        run(
            [
                sys.executable,
                "-m",
                "mlxops",
                "sql",
                "--format",
                "json",
                "select value from metric where name = 'iterations_per_second'",
            ],
            folder,
        )
    )
    return sum(1 / row["value"] for row in rows), folder / "ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--longest", type=int, default=2500, help="characters of an answer")
    options = parser.parse_args()
    if options.rows % options.batch:
        parser.error("--rows must be a multiple of --batch: mlx_lm.lora leaves out what is left over")
    iterations = options.rows // options.batch

    rates: dict[str, list[float]] = {"mlx_lm.lora": [], "mlxops": []}
    adapters: dict[str, Path] = {}
    with contextlib.ExitStack() as kept:
        for repeat in range(options.repeats):
            folder = Path(kept.enter_context(tempfile.TemporaryDirectory()))
            (folder / "data").mkdir()
            (folder / "tasks.py").touch()
            make_data(folder / "data", rows=options.rows, validation_rows=16, longest=options.longest)
            tokens = count_trained(options.model, folder / "data")
            for name, train in (("mlx_lm.lora", train_with_mlx_lm), ("mlxops", train_with_mlxops)):
                seconds, adapters[name] = train(options, folder, iterations)
                rates[name].append(tokens / seconds)
                print(
                    f"repeat {repeat + 1}: {name:12} {tokens:,} trained tokens in {seconds:7.1f} s, "
                    f"{rates[name][-1]:7.1f} tokens/s",
                    flush=True,
                )
        ratios = [ours / theirs for ours, theirs in zip(rates["mlxops"], rates["mlx_lm.lora"], strict=True)]
        print(
            f"ratio mlxops / mlx_lm.lora: median {statistics.median(ratios):.2f}, "
            f"from {min(ratios):.2f} to {max(ratios):.2f}"
        )
        losses = {name: measure(options, folder / "data", adapter) for name, adapter in adapters.items()}
        for name, (loss, error) in losses.items():
            print(f"validation loss after the epoch: {name:12} {loss:.4f} ± {error:.4f}")
        worse = losses["mlxops"][0] - losses["mlx_lm.lora"][0]
        print(f"difference {worse:+.4f}, standard error {losses['mlxops'][1]:.4f}")


def rows_of(model: Path, data_folder: Path, side: str) -> list:
    from mlxops import data
    from mlxops.models.tokenizer import load_tokenizer

    splits = data.read(data_folder)
    tokenizer = load_tokenizer(model)
    return list(data.tokenize(getattr(splits, side), tokenizer, max_seq_length=2048, mask_prompt=True).rows)


def count_trained(model: Path, data_folder: Path) -> int:
    return sum(row.trained for row in rows_of(model, data_folder, "train"))


def measure(options: argparse.Namespace, data_folder: Path, adapter: Path) -> tuple[float, float]:
    """The loss of an adapter on the validation rows and its standard error, the same way for both."""
    from mlxops.projects import blas, machine

    blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))
    import numpy as np
    from mlx_lm.tuner.utils import load_adapters

    from mlxops.models.loading import load_model
    from mlxops.training import batches, step
    from mlxops.training.objectives.sft import SUPERVISED
    from mlxops.training.score import arrays_of, plain

    model = load_adapters(load_model(options.model)[0], str(adapter))
    model.eval()
    losses, tokens = [], []
    for batch in batches.fixed_batches(rows_of(options.model, data_folder, "valid"), batch_size=4, count=-1, seed=0):
        losses.append(np.array(SUPERVISED.terms(plain(model), arrays_of(batch))["loss"], np.float64))
        tokens.append(SUPERVISED.weights(batch)["loss"])
    return step.ratio(np.concatenate(losses), np.concatenate(tokens))


if __name__ == "__main__":
    main()
