"""Trained tokens per second of whole runs, from the command to the finished adapter, beside the real `mlx_lm.lora`.

    python benchmarks/train_speed.py MODEL OTHER --everything --results FILE
    python benchmarks/train_speed.py MODEL OTHER --page --results FILE > docs/performance.md
    python benchmarks/train_speed.py MODEL --results FILE [--layers 4,16,30] [--epochs 3] [--seeds 3]
                                     [--switches] [--profile]
    python benchmarks/train_speed.py --tiny --results FILE --seeds 10

Each training is a process of its own, the two programs in turn, both with the same BLAS, their own defaults and masked
prompts; both validate before the first epoch and after each, and save. `--switches` also trains with each of what saves
time switched off, `--profile` measures where our time goes, `--tiny` compares the losses of both on the tiny model.
`--everything` measures all that is on the page, in less than 90 minutes on a machine with two cores that does nothing
else; OTHER is one with a large vocabulary and a chat template. What is in the file of results is not measured again, so
a run that was stopped continues. `--page` prints docs/performance.md from the results. The rows are in `train_speed/`.

`train_limit.py` has the limit that the arithmetic sets, `train_page.py` the table and the page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from train_limit import BATCH, DATA, counts, validation
from train_page import histogram, page, table
from train_result import OURS, PROFILED, SWITCHES, THEIRS, TINY, Result, read

HERE = Path(__file__).resolve().parent
OFF = {
    "loss": "every position, summed in blocks",
    "prefix": "none",
}
"""The ways that a switch puts in place of those of a new run (`mlxops/training/ways.py`)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", metavar="model", help="the model's folder; for --page, of each")
    parser.add_argument("--results", type=Path, required=True, help="a file of JSON lines, which is continued")
    parser.add_argument("--layers", default="4,16,30")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--switches", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        print(page(read(options.results), options.models))
        return 0
    if len(options.models) != (2 if options.everything else 0 if options.tiny else 1):
        parser.error("name the model's folder, or --tiny, or two models and --everything")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if options.everything:
            everything(*options.models, tiny(Path(folder)), options.results)
        elif options.tiny:
            options.models = [tiny(Path(folder))]
            measure(options.results, options.models[0], [1], options.epochs, options.seeds, [THEIRS, OURS])
        else:
            programs = [THEIRS, OURS, *(SWITCHES if options.switches else ()), *[PROFILED] * options.profile]
            layers = [int(each) for each in options.layers.split(",")]
            measure(options.results, options.models[0], layers, options.epochs, options.seeds, programs)
        show(options)
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes")
    return 0


# ---- measuring ----------------------------------------------------------------------------------------------------


def everything(main_model: Path, other: Path, tiny_model: Path, results: Path) -> None:
    """All that is on the page. A model without a chat template is told before anything is measured."""
    for model in (main_model, other):
        counts(model)
    measure(results, main_model, [4, 16], 3, 1, [THEIRS, OURS, *SWITCHES])
    measure(results, main_model, [4, 16, 30], 3, 3, [THEIRS, OURS])
    measure(results, main_model, [4, 16, 30], 3, 1, [PROFILED])
    measure(results, main_model, [4], 10, 1, [THEIRS, OURS])
    measure(results, other, [4], 1, 1, [THEIRS, OURS])
    measure(results, tiny_model, [1], 3, 10, [THEIRS, OURS])


def measure(
    results: Path, model: Path, layers: Sequence[int], epochs: int, seeds: int, programs: Sequence[str]
) -> None:
    """Run what the file of results lacks, program by program in turn."""
    done = {each.key for each in read(results)}
    for seed in range(seeds):
        for number in layers:
            for program in programs if seed % 2 == 0 else programs[::-1]:
                if (program, model.name, number, epochs, seed) in done:
                    continue
                result = train(program, model.resolve(), number, epochs, seed)
                with results.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(result)) + "\n")
                print(
                    f"{program:24} {number:2} layers, seed {seed}: {result.seconds:7.1f} s, "
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
            *("--steps-per-report", str(steps), "--steps-per-eval", str(steps), "--save-every", str(steps)),
            *("--adapter-path", "adapter"),
        ]
        if program == THEIRS:
            command = [str(HERE / "mlx_lm_peer.py"), *options, "--train"]
        else:
            off = [f"{part}={OFF[part]}" for part in SWITCHES.get(program, ())]
            command = [str(HERE / "lora_by_ways.py"), *off, "--", *options, "--samples", "0"]
            command += ["--profile"] * (program == PROFILED)
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
        peak = peak_there(done.stdout) if program == THEIRS else peak_here(folder)
        saved = losses_on_the_way(model, folder / "adapter", begun)
        parts = parts_of(folder) if program == PROFILED else {}
        loss, error = loss_of(model, read_adapter(folder / "adapter" / "adapters.safetensors"))
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
        saved=saved,
        parts=parts,
    )


def peak_there(output: str) -> float:
    """The peak that `mlx_lm.lora` reported, in bytes."""
    return float(max(each["train"]["peak_memory"] for each in reports(output) if "train" in each)) * 1e9


def reports(output: str) -> list[dict]:
    """The lines of `mlx_lm_peer.py`."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def peak_here(folder: Path) -> float:
    """The same of the registry."""
    from mlxops import registry

    with registry.open_read_only(folder / "runs.db") as db:
        (peak,) = db.rows("SELECT max(value) AS peak FROM metric WHERE name = 'peak_memory'")
    return float(peak["peak"])


def parts_of(folder: Path) -> dict[str, float]:
    """The seconds of each part of the work."""
    from mlxops import registry

    with registry.open_read_only(folder / "runs.db") as db:
        return {row["part"]: float(row["seconds"]) for row in db.rows("SELECT part, seconds FROM profiles")}


def losses_on_the_way(model: Path, adapter: Path, begun: float) -> list[tuple[float, float]]:
    """Seconds since the command was given and the loss there: of the model alone, and of each adapter that was saved.

    Both programs save theirs under the same names. What they print of validations cannot be compared: they do not count
    the same tokens.
    """
    found = [(0.0, loss_of(model, None)[0])]
    for saved in sorted(adapter.glob("*[0-9]_adapters.safetensors")):
        found.append((saved.stat().st_mtime - begun, loss_of(model, read_adapter(saved))[0]))
    return found


def read_adapter(weights: Path) -> tuple[bytes, bytes]:
    """The file of an adapter and the configuration beside it."""
    return weights.read_bytes(), weights.with_name("adapter_config.json").read_bytes()


@cache  # the adapter offered is the last one saved, and the model alone is always the same
def loss_of(model_folder: Path, adapter: tuple[bytes, bytes] | None) -> tuple[float, float]:
    """The loss of an adapter on the validation rows and its standard error, in the same way for both programs."""
    from mlxops.projects import blas, machine

    blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))
    import mlx.core as mx
    import numpy as np
    from mlx_lm.tuner.utils import load_adapters

    from mlxops.models.loading import load_model
    from mlxops.training import improvement
    from mlxops.training.objectives.sft import SUPERVISED
    from mlxops.training.score import arrays_of, plain

    model = load_model(model_folder, dtype="float32")[0]
    if adapter is not None:
        with tempfile.TemporaryDirectory() as name:
            for file, content in zip(("adapters.safetensors", "adapter_config.json"), adapter, strict=True):
                (Path(name) / file).write_bytes(content)
            model = load_adapters(model, name)
            mx.eval(model.parameters())
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


def show(options: argparse.Namespace) -> None:
    """What the file of results has, with what was computed."""
    results = read(options.results)
    for model in options.models:
        print(f"tokens of a row: {histogram(model)}")
        print(f"counts: {counts(model)}")
    print("\n".join(table(results, options.models)))


if __name__ == "__main__":
    sys.exit(main())
