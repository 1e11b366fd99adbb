"""Trained tokens per second of whole runs, from the command to the finished adapter, beside the real `mlx_lm.lora`.

    python benchmarks/train_speed.py MODEL --results FILE [--layers 4,16,30] [--epochs 3] [--seeds 3] [--switches]
    python benchmarks/train_speed.py --tiny --results FILE --seeds 10
    python benchmarks/train_speed.py MODEL --page --results FILE > docs/performance.md

Each training is a process of its own, the two programs in turn, both with the same BLAS, their own defaults and masked
prompts; both validate before the first epoch and after each. `--switches` also trains with each of what saves time switched off. What
is in the file of results is not measured again, so a run that was stopped continues. `--tiny` compares the losses of
both on the tiny model. `--page` prints docs/performance.md from the results. The rows are in `train_speed/`.

`train_limit.py` has the limit that the arithmetic sets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from train_limit import BATCH, DATA, counts, limit, validation

HERE = Path(__file__).resolve().parent
OFF = {
    "loss": "every position, summed in blocks",
    "prefix": "none",
}
"""The ways that a switch puts in place of those of a new run (`mlxops/training/ways.py`)."""
SWITCHES: dict[str, tuple[str, ...]] = {
    "loss at every position": ("loss",),
    "no frozen prefix": ("prefix",),
    "neither": ("loss", "prefix"),
}
THEIRS = "mlx_lm.lora"
OURS = "mlxops"
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A training: its seconds as a whole, the peak in bytes, and the validation loss with its standard error.

    `validations` are the validations during training: seconds since the command was given, and the loss.
    """

    program: str
    model: str
    layers: int
    epochs: int
    seed: int
    seconds: float
    loss: float
    error: float
    peak: float
    tokens: int
    validations: list[tuple[float, float]]

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What is measured once."""
        return self.program, self.model, self.layers, self.epochs, self.seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="the model's folder")
    parser.add_argument("--results", type=Path, required=True, help="a file of JSON lines, which is continued")
    parser.add_argument("--layers", default="4,16,30")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--switches", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        print(page(read(options.results), options.model))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            options.model = tiny(Path(folder))
            options.layers = "1"
        if options.model is None:
            parser.error("name the model's folder, or --tiny")
        measure(options)
        show(options)
    return 0


# ---- measuring ----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Run what the file of results lacks, program by program in turn."""
    done = {each.key for each in read(options.results)}
    for seed in range(options.seeds):
        for layers in map(int, options.layers.split(",")):
            programs = [THEIRS, OURS, *(SWITCHES if options.switches else ())]
            for program in programs if seed % 2 == 0 else programs[::-1]:
                if (program, options.model.name, layers, options.epochs, seed) in done:
                    continue
                result = train(program, options.model.resolve(), layers, options.epochs, seed)
                with options.results.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(result)) + "\n")
                print(
                    f"{program:24} {layers:2} layers, seed {seed}: {result.seconds:7.1f} s, "
                    f"{result.tokens / result.seconds:7.1f} trained tokens/s, peak {result.peak / 2**20:6.0f} MiB, "
                    f"loss {result.loss:.4f} ± {result.error:.4f}",
                    flush=True,
                )


def train(program: str, model: Path, layers: int, epochs: int, seed: int) -> Result:
    """Train once in a fresh folder, with an empty registry; the kernels that MLX compiles are kept between runs."""
    rows = len((DATA / "train.jsonl").read_text(encoding="utf-8").splitlines())
    steps = rows // BATCH
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(DATA, folder / "data")
        (folder / "tasks.py").touch()
        options = [
            *("--model", str(model), "--data", "data", "--iters", str(epochs * steps), "--num-layers", str(layers)),
            *("--batch-size", str(BATCH), "--mask-prompt", "--seed", str(seed), "--learning-rate", "1e-4"),
            *("--steps-per-report", str(steps), "--steps-per-eval", str(steps), "--adapter-path", "adapter"),
        ]
        if program == THEIRS:
            command = [str(HERE / "mlx_lm_peer.py"), *options, "--train"]
        else:
            off = [f"{part}={OFF[part]}" for part in SWITCHES.get(program, ())]
            command = [str(HERE / "lora_by_ways.py"), *off, "--", *options, "--samples", "0"]
        begun = time.time()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.time() - begun
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        there = program == THEIRS
        peak = peak_there(done.stdout) if there else peak_here(folder)
        validations = validations_there(done.stdout) if there else validations_here(folder)
        loss, error = loss_of(model, folder / "adapter")
    return Result(
        program=program,
        model=model.name,
        layers=layers,
        epochs=epochs,
        seed=seed,
        seconds=seconds,
        loss=loss,
        error=error,
        peak=peak,
        tokens=epochs * counts(model).trained,
        validations=[(at - begun, value) for at, value in validations],
    )


def peak_there(output: str) -> float:
    """The peak that `mlx_lm.lora` reported, in bytes."""
    return float(max(each["train"]["peak_memory"] for each in reports(output) if "train" in each)) * 1e9


def validations_there(output: str) -> list[tuple[float, float]]:
    """The time of each of its validations, in seconds since 1970, and the loss."""
    return [(each["at"], each["validation"]["val_loss"]) for each in reports(output) if "validation" in each]


def reports(output: str) -> list[dict]:
    """The lines of `mlx_lm_peer.py`."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def peak_here(folder: Path) -> float:
    """The same of the registry."""
    from mlxops import registry

    with registry.open_read_only(folder / "runs.db") as db:
        (peak,) = db.rows("SELECT max(value) AS peak FROM metric WHERE name = 'peak_memory'")
    return float(peak["peak"])


def validations_here(folder: Path) -> list[tuple[float, float]]:
    """The same as `validations_there`, of the registry."""
    from mlxops import registry

    with registry.open_read_only(folder / "runs.db") as db:
        rows = db.rows(
            "SELECT 86400.0 * (julianday(created_at) - julianday('1970-01-01')) + elapsed_seconds AS at, value "
            "FROM metric JOIN runs ON runs.name = metric.run WHERE metric.name = 'validation_loss' ORDER BY at"
        )
        return [(float(row["at"]), float(row["value"])) for row in rows]


def loss_of(model_folder: Path, adapter: Path) -> tuple[float, float]:
    """The loss of an adapter on the validation rows and its standard error, in the same way for both programs."""
    from mlxops.projects import blas, machine

    blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))
    import numpy as np
    from mlx_lm.tuner.utils import load_adapters

    from mlxops.models.loading import load_model
    from mlxops.training import improvement
    from mlxops.training.objectives.sft import SUPERVISED
    from mlxops.training.score import arrays_of, plain

    model = load_adapters(load_model(model_folder, dtype="float32")[0], str(adapter))
    model.eval()
    losses, tokens = [], []
    for batch in validation(model_folder):
        losses.append(np.array(SUPERVISED.terms(plain(model), arrays_of(batch))["loss"], np.float64))
        tokens.append(SUPERVISED.weights(batch)["loss"])
    return improvement.ratio(np.concatenate(losses), np.concatenate(tokens))


def tiny(folder: Path) -> Path:
    """A tiny model to compare losses with."""
    from mlxops.models.tiny import make_tiny

    return make_tiny(folder / TINY)


def read(file: Path) -> list[Result]:
    """What was measured before."""
    if not file.exists():
        return []
    return [Result(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


# ---- showing ------------------------------------------------------------------------------------------------------


def pairs(results: Sequence[Result], program: str) -> Iterator[tuple[Result, Result]]:
    """A program's results with those of `mlx_lm.lora` on the same."""
    peers = {each.key[1:]: each for each in results if each.program == THEIRS}
    for each in results:
        if each.program == program and each.key[1:] in peers:
            yield each, peers[each.key[1:]]


def table(results: Sequence[Result], model: Path | None) -> list[str]:
    """A line for each program, number of layers and of epochs."""
    from mlxops import words

    lines = [
        "| model | epochs | layers | program | tokens/s, times `mlx_lm.lora` | limit | peak memory "
        "| validation loss, less theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells = sorted({(each.model, each.epochs, each.layers) for each in results})
    for name, epochs, layers in cells:
        for program in (OURS, *SWITCHES):
            here = [each for each in results if (each.model, each.epochs, each.layers) == (name, epochs, layers)]
            found = list(pairs(here, program))
            if not found:
                continue
            ratios = [theirs.seconds / ours.seconds for ours, theirs in found]
            losses = [mine.loss - peer.loss for mine, peer in found]
            peaks = [mine.peak / peer.peak for mine, peer in found]
            bound = limit(model, layers, epochs) if model is not None and model.name == name else None
            speed = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
            seeds = words.plural(len(ratios), "seed")
            # the tiny model is there for its losses alone
            shown = (
                (f"losses of {seeds}", "", "")
                if name == TINY
                else (
                    f"{speed}{seeds})",
                    f"{bound:.2f}" if bound is not None and program == OURS else "",
                    f"{statistics.median(peaks):.2f}",
                )
            )
            lines.append(f"| {name} | {epochs} | {layers} | {program} | {' | '.join(shown)} | {_mean(losses)} |")
    return lines


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.4f}"
    return f"{statistics.mean(values):+.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def histogram(model: Path) -> str:
    """How long the training rows are, in tokens."""
    from mlxops import data
    from mlxops.models.tokenizer import load_tokenizer

    rows = data.tokenize(data.read(DATA).train, load_tokenizer(model), max_seq_length=2048, mask_prompt=True).rows
    steps = [sum(low <= each.length < low + 32 for each in rows) for low in range(0, 320, 32)]
    return ", ".join(f"{32 * place}+: {count}" for place, count in enumerate(steps) if count)


def show(options: argparse.Namespace) -> None:
    """What the file of results has, with what was computed."""
    results = read(options.results)
    print(f"tokens of a row: {histogram(options.model)}")
    print(f"counts: {counts(options.model)}")
    print("\n".join(table(results, options.model)))


_PAGE = """# Performance

This page is printed by `benchmarks/train_speed.py`: whole runs, from the command to the finished adapter, of mlxops
and of the real `mlx_lm.lora` in turn, each in a process of its own with its own defaults, the same fast BLAS and
masked prompts. Both validate before the first iteration and after the last. There are {rows} rows of unlike length
in batches of {batch}, sections of this project's own pages; their lengths in tokens: {histogram}.

The machine: {machine}.

{table}

- **tokens/s** are trained tokens, an epoch's times the epochs, by the seconds of the whole command. The figure is the
  median of the ratios, with the smallest and the largest.
- **limit** is what the arithmetic allows, from the run's own counts: with P parameters in a layer, V in the head and
  N of L layers trained, a padded position costs `mlx_lm.lora` (L + N) P + 2 V, and mlxops 2 N P, 2 V more where it is
  trained, and (L - N) P once. Attention, small matrices, start-up and closing are not in it, and none of them becomes
  less.
- **peak memory** is MLX's own peak beside that of `mlx_lm.lora`.
- **validation loss** is that of both adapters on the same rows, measured in the same way.
- The rows below mlxops have one of what saves time switched off: *loss at every position* projects padding and masked
  prompts onto the vocabulary, *no frozen prefix* computes the layers below the first trained one at every step.

A ratio above the limit comes from other work on the machine during one of the two runs.
With few seeds the difference of the losses says little: it changes with the order of the batches. The tiny model is
trained with more of them.

What is computed and what is not stands in [training](training.md#what-is-computed-and-what-is-not).
"""


def page(results: Sequence[Result], model: Path) -> str:
    """docs/performance.md."""
    from mlxops import words
    from mlxops.projects import machine

    facts, versions = machine.facts(), machine.versions()
    named = (
        f"{facts['cpu']}, {facts['cores']} cores, {words.size(float(facts['memory']))} of memory, {facts['machine']}, "
        f"Python {facts['python']}, mlx {versions['mlx']}, mlx-lm {versions['mlx-lm']}"
    )
    rows = len((DATA / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return _PAGE.format(
        rows=rows, batch=BATCH, histogram=histogram(model), machine=named, table="\n".join(table(results, model))
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
