"""Prints the memory that is predicted for training and for making text, and the peak that MLX measures.

    python benchmarks/memory_estimate.py [--model FOLDER ...]

Without a model, tiny ones of several shapes are made. Three steps are trained of each, or four tokens made; the tokens
that they begin with are made up. The peak counts from before the model is loaded.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlxops.config import LoraConfig
from mlxops.jobs.train.memory import trained_part
from mlxops.models import memory
from mlxops.models.loading import load_for_generation, load_model
from mlxops.models.tiny import make_tiny
from mlxops.projects import blas, machine
from mlxops.rows import TokenRow
from mlxops.training import batches

_MADE = 4  # tokens


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to be made, the settings to train it with, and the positions of its rows."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = 2
    width: int = 256
    dtype: str = "float32"


CASES = (
    Case(name="tiny"),
    Case(name="short rows", width=64),
    Case(name="long rows", width=512),
    Case(name="larger batch", rows=6),
    Case(name="hidden 256", model={"hidden": 256, "vocab": 4096}, width=128),
    Case(name="vocabulary 16k", model={"vocab": 16384}),
    Case(name="vocabulary 96k, in pieces", model={"vocab": 98_304, "layers": 2}, rows=4, width=128),
    Case(name="8 layers", model={"layers": 8}),
    Case(name="8 layers, 1 trained", model={"layers": 8}, settings={"num_layers": 1}),
    Case(name="8 layers, recomputed", model={"layers": 8}, settings={"grad_checkpoint": True}),
    Case(name="8 heads", model={"heads": 8, "kv_heads": 8}),
    Case(name="rank 64", settings={"lora_rank": 64}),
    Case(name="one key", settings={"lora_keys": ["self_attn.q_proj"]}),
    Case(name="dropout", settings={"lora_dropout": 0.1}),
    Case(name="dora", settings={"fine_tune_type": "dora"}),
    Case(name="full", settings={"fine_tune_type": "full"}),
    Case(name="full, accumulated", settings={"fine_tune_type": "full", "grad_accumulation_steps": 2}, width=64),
    *(
        Case(
            name=f"full, {optimizer}, short rows",
            model={"hidden": 128},
            settings={"fine_tune_type": "full", "optimizer": optimizer},
            rows=1,
            width=16,
        )
        for optimizer in ("adam", "adamw", "muon", "sgd", "adafactor")
    ),
    Case(name="4 bits", model={"quantized": True}),
    Case(name="qwen3", model={"model_type": "qwen3"}),
    Case(name="bfloat16", dtype="bfloat16"),
    Case(name="bfloat16, full", dtype="bfloat16", settings={"fine_tune_type": "full"}),
)

TEXTS = (
    Case(name="text, short", rows=1, width=250),
    Case(name="text, long", rows=1, width=2000),
    Case(name="text, 8 layers", model={"layers": 8, "kv_heads": 4}, rows=1, width=1000),
    Case(name="text, 4 bits", model={"quantized": True}, rows=1, width=1000),
    Case(name="text, 4 at once", rows=4, width=250),
)

REAL = (
    Case(name="4 layers, 4 x 96", settings={"num_layers": 4}, rows=4, width=96),
    Case(name="16 layers, 2 x 64", settings={"num_layers": 16}, width=64),
    Case(name="30 layers, 1 x 256", settings={"num_layers": -1}, rows=1),
    Case(name="16 layers, recomputed, 2 x 128", settings={"num_layers": 16, "grad_checkpoint": True}, width=128),
    Case(name="full, 2 layers, 1 x 64", settings={"num_layers": 2, "fine_tune_type": "full"}, rows=1, width=64),
)

REAL_TEXTS = tuple(
    Case(name=f"text, {rows} x {width}", rows=rows, width=width) for rows, width in ((1, 128), (1, 2048), (4, 512))
)


def config_of(case: Case) -> LoraConfig:
    """The settings of a case; all layers are trained unless it says otherwise."""
    return replace(LoraConfig(num_layers=-1, batch_size=case.rows), **case.settings)


def predicted(model: Path, case: Case) -> memory.TrainingMemory:
    """What is predicted for a training."""
    shape = memory.shape_of(model)
    trained = trained_part(config_of(case), len(shape.layers))
    return memory.training(shape, trained, rows=case.rows, width=case.width, dtype=case.dtype, keeps_scores=_on_cpu())


def predicted_text(model: Path, case: Case) -> memory.GenerationMemory:
    """What is predicted for conversations of `width` tokens."""
    shape = memory.shape_of(model)
    return memory.generating(shape, tokens=case.width, dtype=case.dtype, keeps_scores=_on_cpu(), rows=case.rows)


def measured(model: Path, case: Case) -> int:
    """The peak of three steps, as MLX has it, in bytes."""
    return _peak(lambda: _train(model, case))


def measured_text(model: Path, case: Case) -> int:
    """The peak of making four tokens at the end of conversations."""
    return _peak(lambda: _make_text(model, case))


def _on_cpu() -> bool:
    return bool(machine.device()["kind"] == "cpu")


def _peak(work: Callable[[], None]) -> int:
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    work()
    return int(mx.get_peak_memory() - before)


def _train(model: Path, case: Case) -> None:
    import mlx.core as mx

    from mlxops.training import layers
    from mlxops.training.step import Trainer, Work

    config = config_of(case)
    # the loader knows the three types by name
    prepared = layers.prepare(load_model(model, dtype=case.dtype)[0], config)  # type: ignore[arg-type]
    tokens = np.arange(case.width + 1, dtype=np.int32) % 300 + 3
    rows = [TokenRow(tokens=tokens, spans=((1, case.width + 1),), origin="made up")] * case.rows
    estimated = predicted(model, case)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            model=prepared, config=config, plan=batches.plan(rows, batch_size=case.rows, seed=0), validation=[],
            target=3, folder=Path(folder), fingerprint="", environment={}, run={},
            expected_memory=int(1.05 * estimated.peak) if estimated.in_pieces else None,
        )  # fmt: skip
        trainer = Trainer(work)
        for iteration in (1, 2, 3):
            trainer.counters.iteration = iteration
            weights = trainer.group_weights(iteration)
            trainer.accumulate(work.plan.batch(iteration), weights)
            if iteration % config.grad_accumulation_steps == 0:
                trainer.update(1e-5, weights)
        mx.eval(trainer.model.parameters(), trainer.optimizer.state)


def _make_text(model: Path, case: Case) -> None:
    from mlxops.models import generation

    loaded = load_for_generation(model, dtype=case.dtype)  # type: ignore[arg-type]
    loaded = replace(loaded, stop_tokens=frozenset())
    prompt = [each % 300 + 3 for each in range(case.width - _MADE)]
    if case.rows == 1:
        generation.generate(loaded, prompt, max_tokens=_MADE)
    else:
        generation.generate_batch(loaded, [prompt] * case.rows, max_tokens=_MADE)


def make(case: Case, folder: Path) -> Path:
    """The tiny model of a case."""
    return make_tiny(folder / case.name.replace(" ", "-"), **case.model)


def show(model: Path, case: Case) -> None:
    """A line for a case."""
    is_text = case in TEXTS or case in REAL_TEXTS
    found = (predicted_text if is_text else predicted)(model, case).peak
    was = (measured_text if is_text else measured)(model, case)
    print(f"{case.name:32} {found / 2**20:9.1f} {was / 2**20:9.1f} {found / was:6.2f}", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a model's folder instead; repeatable")
    arguments = parser.parse_args()
    blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None)  # before MLX
    print(f"{'':32} predicted  measured  ratio (MiB)")
    for model in arguments.model:
        print(model.name)
        for case in (*REAL, *REAL_TEXTS):
            show(model, case)
    if not arguments.model:
        with tempfile.TemporaryDirectory() as folder:
            for case in (*CASES, *TEXTS):
                show(make(case, Path(folder)), case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
