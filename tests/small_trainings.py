"""Small trainings of the tiny model: rows by a formula, settings that fit them, and a listener that keeps all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxops import layout
from mlxops.config import LoraConfig
from mlxops.events import Event, Step, Stopped
from mlxops.models.loading import load_model
from mlxops.rows import TokenRow
from mlxops.training import batches, checkpoints, layers
from mlxops.training.loop import train
from mlxops.training.objectives.sft import SUPERVISED
from mlxops.training.score import arrays_of, plain
from mlxops.training.signals import StopRequest
from mlxops.training.state import Counters
from mlxops.training.step import Trainer, Work

E = TypeVar("E")

SMALL = LoraConfig(
    num_layers=2,
    lora_rank=4,
    lora_scale=2.0,
    learning_rate=1e-2,
    batch_size=2,
    iters=6,
    steps_per_report=2,
    steps_per_eval=3,
    save_every=2,
)

OVERSHOOTING = {"steps_per_eval": 2, "save_every": 100, "steps_per_report": 5, "learning_rate": 1e-2, "iters": 15}
"""Settings whose validation loss is lower until iteration 6, and higher from then on, and that save on no grid."""


def row(number: int, length: int, *, prompt: int | None = None) -> TokenRow:
    """A row whose first `prompt` tokens (a third of it unless given) are not trained."""
    tokens = np.array([(37 * number + 11 * place * place + place) % 381 + 3 for place in range(length)], np.int32)
    start = length // 3 if prompt is None else prompt
    return TokenRow(tokens=tokens, spans=((start, length),), origin=f"train.jsonl:{number + 1}")


def rows(count: int = 9, *, shortest: int = 6, longest: int = 40) -> tuple[TokenRow, ...]:
    """Rows of mixed lengths."""
    return tuple(row(number, shortest + number * 17 % (longest - shortest + 1)) for number in range(count))


def settings(**changed: Any) -> LoraConfig:
    """The small settings with some changed."""
    return replace(SMALL, **changed)


def model_of(folder: Path, config: LoraConfig) -> nn.Module:
    """The tiny model, ready to train."""
    return layers.prepare(load_model(folder)[0], config)


def work(source: Path, folder: Path, config: LoraConfig = SMALL, **changed: Any) -> Work:
    """What `train` takes; resumes from the newest checkpoint in the folder if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = changed.pop("rows", None) or rows()
    validated = changed.pop("validation_rows", ())
    values: dict[str, Any] = {
        "model": model_of(source, config),
        "config": config,
        "plan": batches.plan(trained, batch_size=config.batch_size, seed=config.seed),
        "validation": batches.fixed_batches(
            validated, batch_size=config.batch_size, count=config.val_batches, seed=config.seed
        ),
        "target": config.iters,
        "folder": folder,
        "fingerprint": "f",
        "environment": {"mlx": "1"},
        "run": {"name": "r"},
        "start": checkpoints.newest(folder)[0],
    }
    values["has_begun"] = values["start"] is not None
    return Work(**{**values, **changed})


def trainer(source: Path, folder: Path, config: LoraConfig = SMALL, **changed: Any) -> Trainer:
    """A trainer before its first step."""
    return Trainer(work(source, folder, config, **changed))


@dataclass
class Heard:
    """A listener that keeps what it hears, and asks for a stop when `stop_at` says so."""

    stop_at: Callable[[Event], bool] = lambda event: False
    events: list[Event] = field(default_factory=list)
    stop: StopRequest = field(default_factory=StopRequest)
    stopped: Stopped | None = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.stop_at(event):
            self.stop.signal_number = 15

    def of(self, kind: type[E]) -> list[E]:
        """The events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def losses(self) -> list[float | None]:
        """The loss of each step."""
        return [event.loss for event in self.of(Step)]


@dataclass
class MinutePerStep:
    """A clock by which every step takes a minute; `hear` is told of them, and never asks for a stop."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    def hear(self, event: Event) -> bool:
        """Take note of an event."""
        self.seconds += 60 * isinstance(event, Step)
        return False


def train_small(source: Path, folder: Path, config: LoraConfig = SMALL, **changed: Any) -> Heard:
    """Train to the target, or until `stop_at`; returns what was heard."""
    heard = Heard(changed.pop("stop_at", lambda event: False))
    heard.stopped = train(work(source, folder, config, **changed), heard, heard.stop)
    return heard


def after_step(iteration: int) -> Callable[[Event], bool]:
    """True for the step of that iteration."""
    return lambda event: isinstance(event, Step) and event.iteration == iteration


def weights_of(model: nn.Module) -> dict[str, np.ndarray]:
    """All weights by name."""
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def trained_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """The trained weights by name."""
    return {name: np.array(value) for name, value in layers.trainable(model).items()}


def adapter_bytes(folder: Path, iteration: int) -> bytes:
    """The bytes of a checkpoint's adapter file."""
    return (folder / layout.adapter_name(iteration)).read_bytes()


def content(checkpoint: checkpoints.Checkpoint) -> tuple[list[dict[str, Any]], Counters]:
    """All that a run resumes with."""
    parts = checkpoints.load(checkpoint)
    return [{name: value.tolist() for name, value in part.items()} for part in parts], checkpoint.counters


def row_losses(model: nn.Module, batch: batches.Batch) -> np.ndarray:
    """The cross-entropy of each row."""
    return np.array(SUPERVISED.terms(plain(model), arrays_of(batch))["loss"])


def plain_gradient(model: nn.Module, batch_list: Sequence[batches.Batch]) -> dict[str, np.ndarray]:
    """The gradient of the mean loss a trained token over batches, by MLX's plain differentiation, nothing compiled."""

    def loss(parameters: Any) -> mx.array:
        model.update(parameters)
        total = mx.array(0.0)
        for batch in batch_list:
            tokens, mask = mx.array(batch.arrays["tokens"]), mx.array(batch.arrays["mask"])
            found = model(tokens[:, :-1])
            chosen = mx.take_along_axis(found, tokens[:, 1:, None], axis=-1)[..., 0]
            total = total + ((mx.logsumexp(found, axis=-1) - chosen) * mask).sum()
        return total / sum(batch.trained for batch in batch_list)

    parameters = model.trainable_parameters()
    gradient = mx.grad(loss)(parameters)
    model.update(parameters)
    return {name: np.array(value) for name, value in tree_flatten(gradient)}
