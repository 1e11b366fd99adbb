"""One step of training: the gradient of a batch, the update, a validation, a checkpoint of where it all stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxops.config import LoraConfig
from mlxops.errors import Failed
from mlxops.events import Event, Saved, Validating, Validation
from mlxops.training import batches, checkpoints, improvement, layers, optimizers, ways
from mlxops.training.batches import Batch, Plan
from mlxops.training.checkpoints import Checkpoint
from mlxops.training.improvement import ratio
from mlxops.training.inputs import Inputs
from mlxops.training.objectives.sft import SUPERVISED
from mlxops.training.objectives.terms import Objective
from mlxops.training.prefix import Room
from mlxops.training.profile import Profile
from mlxops.training.signals import StopRequest
from mlxops.training.state import Counters

Arrays = dict[str, mx.array]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained on what, how far, and what a checkpoint says of it.

    `model` is as `layers.prepare` left it; `probe` gives facts of the machine for every report; `now` is the clock, in
    seconds, by which `save_minutes` counts; `ways` are the run's (see there); `room` is for hidden states (see
    `prefix`); beyond `expected_memory`, in bytes, a processor waits before it begins more; `has_begun` says that there
    was an attempt before; `carry` writes what else belongs to the checkpoint of an iteration before that is in place.
    """

    model: nn.Module
    config: LoraConfig
    plan: Plan
    validation: Sequence[Batch]
    target: int
    folder: Path
    fingerprint: str
    environment: Mapping[str, Any]
    run: Mapping[str, Any]
    start: Checkpoint | None = None
    objective: Objective = SUPERVISED
    probe: Callable[[], dict[str, float]] = field(default=dict)
    now: Callable[[], float] = time.monotonic
    ways: Mapping[str, str] = field(default_factory=lambda: ways.choose({}))
    room: Room = field(default_factory=Room)
    profile: Profile = field(default_factory=lambda: Profile(on=False))
    expected_memory: int | None = None
    has_begun: bool = False
    carry: Callable[[int], None] = lambda iteration: None


@dataclass(frozen=True)
class Snapshot:
    """Where training stood at one instant: arrays by name, and counters."""

    weights: Arrays
    optimizer: Arrays
    accumulated: Arrays
    counters: Counters


class Trainer:
    """A model, its optimizer and its counters, moved on one batch at a time.

    The steps are compiled, so what a checkpoint holds is restored here before they are.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.model = work.model
        self.optimizer = optimizers.make(work.config, adafactor=work.ways["adafactor"])
        self.optimizer.init(self.model.trainable_parameters())
        self.accumulated: Arrays | None = None
        self.counters = Counters()
        # by the base model, the batches and the seed alone: what is found must not depend on where a run is resumed
        self.inputs = Inputs(
            self.model,
            work.plan,
            work.validation,
            work.target,
            chosen=work.ways,
            room=work.room,
            profile=work.profile,
        )
        if work.start is not None:
            self._restore(work.start)
        mx.eval(self.model.parameters(), self.optimizer.state)
        self._dropouts = layers.dropouts(self.model)
        self._traced = 0
        self._weights: dict[int, dict[str, float]] = {}
        self._validation_identity = improvement.identity(work.validation)
        # the model is an output too: tracing leaves its own arrays in the module, and outputs are put back
        self._gradient = mx.compile(self._gradient_of, inputs=[self.model.state], outputs=[self.model.state])
        state = [self.model.state, self.optimizer.state]
        self._update = mx.compile(self._apply, inputs=state, outputs=state)
        self.model.train()

    def weights(self, batch: Batch) -> dict[str, float]:
        """The weight of a batch, for each name of its objective."""
        return {name: float(each.sum()) for name, each in self.work.objective.weights(batch).items()}

    def group_weights(self, iteration: int) -> dict[str, float]:
        """The weight of each name over the whole accumulation group that an iteration belongs to."""
        plan, size = self.work.plan, self.work.config.grad_accumulation_steps
        first = iteration - (iteration - 1) % size
        total: dict[str, float] = {}
        for each in range(first, first + size):
            _, index = plan.position(each)
            if index not in self._weights:
                self._weights[index] = self.weights(plan.batch(each))
            for name, weight in self._weights[index].items():
                total[name] = total.get(name, 0.0) + weight
        return total

    def accumulate(self, batch: Batch, group_weights: Mapping[str, float]) -> tuple[dict[str, float], str | None]:
        """Add the gradient of a batch to the group's; returns its summed values, and what is wrong with them.

        Each term is divided by its weight in the whole group before the backward pass, so that every token weighs the
        same and a sum over many tokens stays in the range of half precision. Nothing is added where something is wrong.
        """
        values, size, gradient = self._computed(batch, group_weights, self.accumulated)
        wrong = self._wrong(values, size)
        if wrong is None:
            self.accumulated = gradient
            done, weights = self.counters.group_weights, self.weights(batch)
            for name in self.work.objective.coefficients:
                done[name] = done.get(name, 0.0) + weights[name]
            self.counters.gradient_norm = size
        return values, wrong

    def can_learn_from(self, batch: Batch) -> bool:
        """Whether the weights as they are give a batch a finite loss and a gradient; changes nothing."""
        values, size, _ = self._computed(batch, self.weights(batch), None)
        return self._wrong(values, size) is None

    def has_finite_weights(self) -> bool:
        """Whether every trained weight is a finite number."""
        finite = [mx.isfinite(each).all() for each in layers.trainable(self.model).values()]
        return bool(mx.stack(finite).all().item())

    def _computed(
        self, batch: Batch, group_weights: Mapping[str, float], accumulated: Arrays | None
    ) -> tuple[dict[str, float], float, Arrays]:
        key = mx.random.key(batches.step_key(self.work.config.seed, self.counters.iteration))
        scales = {
            name: mx.array(each / (group_weights[name] or 1.0))
            for name, each in self.work.objective.coefficients.items()
        }
        arrays = self.inputs.of(batch, uses=self._uses_left())
        if self.work.expected_memory is not None and self.inputs.is_at_trained:
            mx.set_memory_limit(self.work.expected_memory + self.inputs.bytes_in_memory)
        profile = self.work.profile
        with profile.part("forward and backward"):
            traced = self._traced
            started = time.perf_counter()
            values, norm, gradient = self._gradient(arrays, scales, key, accumulated)
            if self._traced > traced:
                profile.count("compilation", time.perf_counter() - started)
            mx.eval(values, norm, gradient)
        sums = {name: float(each.item()) for name, each in values.items()}  # type: ignore[arg-type]  # none is complex
        return sums, float(norm.item()), gradient  # type: ignore[arg-type]

    def _uses_left(self) -> float:
        """How many times per iteration the batch of this one comes again; 0 for its last time before the target."""
        plan, iteration = self.work.plan, self.counters.iteration
        return 1 / len(plan) if plan.next_use(iteration) <= self.work.target else 0.0

    def _wrong(self, values: Mapping[str, float], norm: float) -> str | None:
        terms = [values[name] for name in self.work.objective.coefficients]
        if not all(map(math.isfinite, terms)):
            return "the loss was not finite"
        if not math.isfinite(norm):
            return "the gradient was not finite"
        # a normalization makes zeros of numbers that overflow: the loss is then that of guessing, whatever the
        # weights are
        return "the gradient was zero" if norm == 0 and any(terms) else None

    @property
    def has_gradient(self) -> bool:
        """Whether gradients are accumulated that have any weight."""
        return any(self.counters.group_weights.values())

    def update(self, learning_rate: float, group_weights: Mapping[str, float]) -> None:
        """Apply what is accumulated, as the gradient of the mean loss over its own weights, clipped where asked for.

        Where part of a group is missing, its terms keep the proportion that they have in the whole group, and none
        counts more than its own mean.
        """
        counters, limit = self.counters, self.work.config.max_grad_norm
        factor = min(group_weights[name] / done for name, done in counters.group_weights.items() if done)
        counters.gradient_norm = (counters.gradient_norm or 0.0) * factor
        if limit is not None and counters.gradient_norm > limit:
            factor *= limit / counters.gradient_norm
        self.optimizer.learning_rate = learning_rate
        with self.work.profile.part("update"):
            self._update(self.accumulated or {}, mx.array(factor))
            # the host prepares the next batch meanwhile, unless this is measured
            evaluate = mx.eval if self.work.profile.is_on else mx.async_eval
            evaluate(self.model.trainable_parameters(), self.optimizer.state)
        self.accumulated = None
        counters.group_weights = {}
        counters.updates += 1

    def validate(self, emit: Callable[[Event], None], stop: StopRequest, *, closing: bool) -> Validation | None:
        """Measure the loss on the validation batches; None where a stop was asked for before the last of them.

        One that is not `closing` counts for the lowest loss and for the last real improvement.
        """
        started = time.perf_counter()
        objective, chosen = self.work.objective, self.work.validation
        uses = 1 / self.work.config.steps_per_eval if self.counters.iteration < self.work.target else 0.0
        found: list[dict[str, np.ndarray]] = []
        self.model.eval()
        for done, batch in enumerate(chosen, start=1):
            terms = objective.terms(*self.inputs.of_validation(batch, uses=uses))
            mx.eval(terms)
            found.append({name: np.array(each, dtype=np.float64) for name, each in terms.items()})
            emit(Validating(iteration=self.counters.iteration, done=done, total=len(chosen)))
            if stop:
                break
        self.model.train()
        if len(found) < len(chosen):
            return None
        values = objective.joined(found)
        weights = objective.joined([objective.weights(batch) for batch in chosen])
        losses, sizes = objective.per_unit(values, weights)
        if not objective.has_coupled_units:
            losses, sizes = improvement.by_origin(losses, sizes, [name for each in chosen for name in each.origins])
        loss, error = ratio(losses, sizes)
        counters = self.counters
        counters.validation_loss = loss if math.isfinite(loss) else None
        counters.validated_at = counters.iteration
        if not closing:
            counters.improvement = improvement.take(
                counters.improvement,
                iteration=counters.iteration,
                rows=losses,
                tokens=sizes,
                rows_of=self._validation_identity,
            )
        measured = Validation(
            iteration=counters.iteration,
            loss=loss,
            standard_error=error,
            rows=sum(len(batch.origins) for batch in chosen),
            tokens=sum(batch.trained for batch in chosen),
            seconds=time.perf_counter() - started,
            metrics={f"validation_{name}": each for name, each in objective.metrics(*_sums(values, weights)).items()},
            without_improvement=counters.improvement.since,
            closing=closing,
        )
        emit(measured)
        return measured

    def snapshot(self) -> Snapshot:
        """Where training stands now. What comes later leaves it as it is."""
        return Snapshot(
            weights=layers.trainable(self.model),
            optimizer=dict(tree_flatten(self.optimizer.state)),
            accumulated=self.accumulated or {},
            counters=self.counters.copy(),
        )

    def save(self, go_on: Snapshot | None = None) -> Saved:
        """Write a checkpoint of the weights as they are; `go_on` is where to continue, if that is not here."""
        here = self.snapshot()
        there = go_on or here
        return self._write(here, there, None if there.counters.updates == here.counters.updates else there.weights)

    def reopen(self, closed: Checkpoint) -> Saved:
        """Write the checkpoint that a target was closed with as a longer run has it: without what closing added."""
        weights, optimizer, accumulated = checkpoints.load(closed)
        counters = closed.counters.copy()
        counters.closed_at, counters.closing = None, {}
        opened = Snapshot(weights, optimizer, accumulated, counters)
        return self._write(opened, opened, None)

    def _write(self, here: Snapshot, there: Snapshot, weights_to_go_on: Arrays | None) -> Saved:
        return checkpoints.write(
            self.work.folder,
            weights=here.weights,
            weights_to_go_on=weights_to_go_on,
            optimizer=there.optimizer,
            accumulated=there.accumulated,
            counters=there.counters,
            counters_of_weights=here.counters,
            random=batches.step_key(self.work.config.seed, there.counters.iteration + 1),
            fingerprint=self.work.fingerprint,
            environment=self.work.environment,
            run=self.work.run,
            carry=self.work.carry,
        )

    def _restore(self, start: Checkpoint) -> None:
        weights, optimizer, accumulated = checkpoints.load(start)
        for what, found, wanted in (
            ("weights", weights, layers.trainable(self.model)),
            ("optimizer state", optimizer, dict(tree_flatten(self.optimizer.state))),
        ):
            if {name: value.shape for name, value in found.items()} != {
                name: value.shape for name, value in wanted.items()
            }:
                raise Failed(
                    f"the {what} of {start.state_path.name} do not fit this model",
                    hint="`inv lora --new` starts a run of its own",
                )
        self.model.load_weights(list(weights.items()), strict=False)
        self.optimizer.state = tree_unflatten(list(optimizer.items()))
        self.optimizer.init(self.model.trainable_parameters())
        self.accumulated = accumulated or None
        self.counters = start.counters.copy()

    def _gradient_of(
        self, batch: Arrays, scales: Arrays, key: mx.array, accumulated: Arrays | None
    ) -> tuple[Arrays, mx.array, Arrays]:
        self._traced += 1  # only tracing comes here
        if self._dropouts:
            for each, part in zip(self._dropouts, mx.random.split(key, len(self._dropouts)), strict=True):
                each.take(part)

        def scaled(batch: Arrays) -> tuple[mx.array, Arrays]:
            values = {name: each.sum() for name, each in self.work.objective.terms(self.inputs.score, batch).items()}
            return reduce(add, (values[name] * scale for name, scale in scales.items())), values

        (_, values), tree = nn.value_and_grad(self.model, scaled)(batch)
        gradient = dict(tree_flatten(tree))
        if accumulated is not None:
            gradient = {name: each + accumulated[name] for name, each in gradient.items()}
        if self.work.config.grad_accumulation_steps > 1:
            # as they come back from a file: the order of a sum, and so its last bit, follows the layout in memory
            gradient = {name: mx.contiguous(each) for name, each in gradient.items()}
        squares = [mx.square(each.astype(mx.float32)).sum() for each in gradient.values()]
        return values, mx.sqrt(mx.stack(squares).sum()), gradient

    def _apply(self, gradient: Arrays, factor: mx.array) -> None:
        scaled = [(name, (each * factor).astype(each.dtype)) for name, each in gradient.items()]
        self.optimizer.update(self.model, tree_unflatten(scaled))


def _sums(*of: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    return [{name: float(each.sum()) for name, each in values.items()} for values in of]
