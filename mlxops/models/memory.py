"""How much memory a model takes, estimated from its files alone: to train it, and to make text with it.

The estimate is of MLX's own peak, which every report of a training has as `peak_memory`; the process takes some 0.3 GB
more. It counts bytes of arrays that are in memory at the same time:

- the weights, in the type computed in; packed ones as they are packed;
- what is trained, its optimizer's state, and whichever is larger of the gradients with the activations, or what an
  update holds at once: the gradients and the old and new arrays;
- activations. Per token, a layer keeps `_KEPT` numbers for each output of its matrices (their inputs, and what lies
  between them and the next), and on a processor one score per head and position before. Backward, one more layer is in
  flight, and two more scores. Layers below the first trained one keep nothing. Recomputing keeps a layer's input alone;
- logits: `_LOGITS` numbers for each token of the vocabulary, at each position whose loss is computed; two less where a
  processor sums their softmax in blocks. A large vocabulary over a frozen head is computed in pieces.

The factors were measured on a processor; `benchmarks/memory_estimate.py` prints what is predicted and what is measured.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from mlxops.models import weight_headers
from mlxops.models.folder_files import read_json
from mlxops.models.weight_headers import Tensor

SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}

_KEPT = 2.25
_IN_FLIGHT = 1.2  # layers
_RECOMPUTED = 1.5  # numbers per input of a layer
_SCORES_IN_FLIGHT = 2
_LOGITS = 4
_WHOLE, _PIECE, _FEWEST = 2**24, 2**22, 32  # logits, and rows of them, as mlxops/training/score.py divides them
_COMPARED = 6  # numbers per token of the vocabulary, where two models are compared
_UPDATE = {"adam": 4.0, "adamw": 4.0, "muon": 3.5, "sgd": 1.5, "adafactor": 3.0}
"""Arrays of the size of what is trained that an update holds at once, besides those there are before it."""
_STATE = {"adam": 2, "adamw": 2, "muon": 1, "sgd": 1, "adafactor": 0}
"""Those that an optimizer keeps."""
_PREFILL = 512  # tokens of a prompt that are computed at once (mlxops/models/generation.py)
_PREFILL_OF_BATCH = 2048  # and of each prompt of a batch, as mlx-lm has it
_PREFILLED = 8  # prompts of a batch at once
_STEP = 256  # tokens by which it makes a cache longer

_Array = tuple[str, str, Tensor, Tensor | None]
"""Of an array its module, what it is of that, and the scales of a packed one."""

_Number = TypeVar("_Number", bound=float)
_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.(.+)\.(\w+)$")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix of a model, by the name of its module; of experts, `copies` are there and `active` compute a token."""

    name: str
    inputs: int
    outputs: int
    copies: int = 1
    active: int = 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The matrices of a layer, and how many numbers it has in all that are not packed."""

    matrices: tuple[Matrix, ...]
    numbers: int


class _Part(NamedTuple):
    """A layer, or what lies outside the layers, and the bytes of it that are packed."""

    layer: Layer
    packed: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model its memory depends on. `numbers` are those that are not packed, `packed` bytes those that are."""

    layers: tuple[Layer, ...]
    others: tuple[Matrix, ...]
    hidden: int
    heads: int
    cached: int
    """Numbers that a layer caches per token: keys and values."""
    vocabulary: int
    numbers: int
    packed: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What of a model is trained and how, as far as its memory depends on it; `layers` of -1 are all of them."""

    kind: Literal["lora", "dora", "full"]
    layers: int
    rank: int
    keys: tuple[str, ...]
    dropout: float
    optimizer: str
    accumulates: bool
    recomputes: bool


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """The bytes of a training at its peak, by what they are for; `trained` are the weights that are trained."""

    model: int
    trained: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    update: int
    in_pieces: bool

    @property
    def peak(self) -> int:
        """The bytes in memory at once."""
        step = max(self.gradients + self.activations + self.logits, self.update)
        return self.model + self.trained + self.optimizer + step


@dataclass(frozen=True, kw_only=True)
class GenerationMemory:
    """The bytes of making text at its peak."""

    model: int
    cache: int
    activations: int

    @property
    def peak(self) -> int:
        """The bytes in memory at once."""
        return self.model + self.cache + self.activations


def shape_of(folder: Path) -> Shape:
    """What the memory of the model in a folder depends on; reads its config and its headers.

    Raises `BadRequest` as `folders.check_model` does, which has a better sentence for what is wrong.
    """
    return shape(read_json(folder / "config.json"), weight_headers.read_headers(folder))


def shape(config: Mapping[str, Any], tensors: Mapping[str, Tensor], vocabulary: int | None = None) -> Shape:
    """The same of a configuration and the headers of the weights; `vocabulary` is looked up there unless given."""
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    active = _whole(config, ("num_experts_per_tok", "num_experts_per_token", "moe_topk"), 1)
    quantization = config.get("quantization")
    group = _whole(quantization if isinstance(quantization, dict) else {}, ("group_size",), 64)
    arrays: dict[str | None, list[_Array]] = {None: []}
    for name, tensor in tensors.items():
        number, module, last = _place(name)
        scales = None if tensor.dtype in _FLOATS else tensors.get(f"{name.rpartition('.')[0]}.scales")
        if (found := arrays.get(number)) is None:
            found = arrays[number] = []
        found.append((module, last, tensor, scales))
    others = _part(arrays.pop(None), active=active, group=group)
    layers: list[_Part] = []
    before: list[_Array] | None = None
    for _, found in sorted(arrays.items(), key=lambda each: int(each[0] or 0)):
        # a layer is mostly as the one before it
        layers.append(layers[-1] if found == before else _part(found, active=active, group=group))
        before = found
    hidden = _whole(config, ("hidden_size", "n_embd", "d_model", "dim", "model_dim"), 0)
    heads = _whole(config, ("num_attention_heads", "n_head", "n_heads"), 0)
    head = _whole(config, ("head_dim",), hidden // heads if heads else 0)
    return Shape(
        layers=tuple(each.layer for each in layers),
        others=others.layer.matrices,
        hidden=hidden,
        heads=heads,
        cached=2 * head * _whole(config, ("num_key_value_heads", "n_kv_heads", "num_kv_heads"), heads),
        vocabulary=vocabulary or weight_headers.embedding_rows(tensors) or _whole(config, ("vocab_size", "n_vocab"), 0),
        numbers=others.layer.numbers + sum(each.layer.numbers for each in layers),
        packed=others.packed + sum(each.packed for each in layers),
    )


def training(
    model: Shape,
    trained: Trained,
    *,
    rows: int,
    width: int,
    dtype: str,
    keeps_scores: bool,
    projected: int | None = None,
    is_lean: bool = True,
) -> TrainingMemory:
    """The memory of training on batches of so many rows and positions, computed in a type.

    `keeps_scores` is for a processor: a GPU attends without the matrix of scores. `projected` is the number of
    positions whose logits are computed, all of them unless given. `is_lean` is for the newest way of the loss: with
    fewer arrays of the size of the logits, and in pieces where there are many logits and the head is frozen.
    """
    size, tokens = SIZES.get(dtype, 4), rows * width
    layers = model.layers if trained.layers < 0 else model.layers[max(0, len(model.layers) - trained.layers) :]
    adapted = [each for layer in layers for each in layer.matrices if _is_adapted(each, trained)]
    adapted += [each for each in model.others if each.name in trained.keys]
    # mlxops/training/score.py sums in blocks on a processor, in float32
    logits = _LOGITS - (1 + is_lean) * (keeps_scores and dtype == "float32")
    own = _trained_bytes(layers, adapted, trained, size)
    at_once = tokens if projected is None else projected
    is_frozen = not any(each.name in trained.keys for each in model.others)
    in_pieces = is_lean and is_frozen and at_once * model.vocabulary > _WHOLE
    if in_pieces:
        at_once = min(at_once, max(_FEWEST, _PIECE // model.vocabulary))
        logits = _LOGITS  # a piece begins before the one before it is gone

    kept = _of_each(layers, lambda layer: _kept(layer, trained, model.hidden, size))
    largest = max(_of_each(model.layers, _outputs), default=0)
    in_flight = _IN_FLIGHT * max([*kept, _KEPT * size * largest])
    scores = model.heads * width * size if keeps_scores else 0
    if trained.recomputes:
        inputs = len(layers) * _RECOMPUTED * model.hidden * size
        activations = inputs + max(kept, default=0) + in_flight + (1 + _SCORES_IN_FLIGHT) * scores
    else:
        activations = sum(kept) + in_flight + (len(layers) + _SCORES_IN_FLIGHT) * scores
    return TrainingMemory(
        model=model.packed + model.numbers * size,
        trained=0 if trained.kind == "full" else own,
        optimizer=own * (_STATE[trained.optimizer] + trained.accumulates),
        gradients=own,
        activations=int(tokens * activations),
        logits=logits * model.vocabulary * size * at_once,
        update=int(own * _UPDATE[trained.optimizer]),
        in_pieces=in_pieces,
    )


def generating(model: Shape, *, tokens: int, dtype: str, keeps_scores: bool, rows: int = 1) -> GenerationMemory:
    """The memory of making text up to so many tokens in all, for several conversations at once."""
    size, at_once = SIZES.get(dtype, 4), min(tokens, _PREFILL if rows == 1 else _PREFILL_OF_BATCH)
    outputs = max(_of_each(model.layers, _outputs), default=0)
    scores = model.heads * tokens if keeps_scores else 0
    cached = len(model.layers) * model.cached * -(-tokens // _STEP) * _STEP
    return GenerationMemory(
        model=model.packed + model.numbers * size,
        cache=rows * cached * size,
        activations=size * (min(rows, _PREFILLED) * at_once * (2 * outputs + scores) + rows * 2 * model.vocabulary),
    )


def comparing(
    model: Shape, *, layers: int, tokens: int, dtype: str, keeps_scores: bool, unpacked: int | None = None
) -> int:
    """The bytes of comparing a model with another one that differs in its last layers (-1: in all), over a row.

    `unpacked` is the number of its parameters where packed weights are unpacked first, in float32.
    """
    size = SIZES.get(dtype, 4)
    held = model.packed + model.numbers * size if unpacked is None else 4 * unpacked
    changed = model.layers if layers < 0 else model.layers[max(0, len(model.layers) - layers) :]
    per_layer = [sum(_numbers(each) for each in layer.matrices) for layer in model.layers]
    every = sum(per_layer) + sum(map(_numbers, model.others))
    share = sum(per_layer[len(per_layer) - len(changed) :]) / every if every else 1.0
    outputs = max(_of_each(model.layers, _outputs), default=0)
    scores = model.heads * tokens if keeps_scores else 0
    row = tokens * (size * (2 * outputs + scores) + 4 * _COMPARED * model.vocabulary)
    return int(held * (1 + share)) + row


@functools.lru_cache(maxsize=8192)  # models of one kind call their arrays the same, and a list reads many models
def _place(name: str) -> tuple[str | None, str, str]:
    """The number of the layer an array is in (None outside the layers), its module there, and what it is of that."""
    if found := _LAYER.search(name):
        return found[1], found[2], found[3]
    module, _, last = name.rpartition(".")
    return None, module, last


def _part(arrays: Iterable[_Array], *, active: int, group: int) -> _Part:
    matrices, numbers, packed = [], 0, 0
    for module, last, tensor, scales in arrays:
        if scales is None:
            numbers += tensor.size
        else:
            packed += 4 * tensor.size
        if last == "weight" and 2 <= len(tensor.shape) <= 3:
            matrices.append(_matrix(module, tensor, scales, active=active, group=group))
    return _Part(Layer(matrices=tuple(matrices), numbers=numbers), packed)


def _numbers(matrix: Matrix) -> int:
    return matrix.copies * matrix.inputs * matrix.outputs


def _matrix(module: str, tensor: Tensor, scales: Tensor | None, *, active: int, group: int) -> Matrix:
    """The matrix of a module, by its name in a layer; `scales` are those of a packed one."""
    *copies, outputs, inputs = tensor.shape
    many = copies[0] if copies else 1
    return Matrix(
        name=module,
        inputs=scales.shape[-1] * group if scales else inputs,
        outputs=outputs,
        copies=many,
        active=min(many, active),
    )


def _is_adapted(matrix: Matrix, trained: Trained) -> bool:
    return trained.kind != "full" and (not trained.keys or matrix.name in trained.keys)


def _trained_bytes(layers: tuple[Layer, ...], adapted: list[Matrix], trained: Trained, size: int) -> int:
    if trained.kind == "full":
        return size * sum(layer.numbers for layer in layers)
    # mlx-lm makes adapters in float32, whatever the model is in
    numbers = sum(each.copies * trained.rank * (each.inputs + each.outputs) for each in adapted)
    return 4 * (numbers + (sum(each.outputs for each in adapted) if trained.kind == "dora" else 0))


def _of_each(layers: Iterable[Layer], number: Callable[[Layer], _Number]) -> list[_Number]:
    """A number of each layer, computed once where layers are as the one before them, as most are."""
    found: list[_Number] = []
    for layer, alike in itertools.groupby(layers):
        found += [number(layer)] * len([*alike])
    return found


def _outputs(layer: Layer) -> int:
    return sum(each.active * each.outputs for each in layer.matrices)


def _kept(layer: Layer, trained: Trained, hidden: int, size: int) -> float:
    """Bytes that a trained layer keeps for each token until its gradient is computed."""
    kept = _KEPT * size * _outputs(layer)
    if trained.kind == "full":
        return kept
    adapted = [each for each in layer.matrices if _is_adapted(each, trained)]
    inputs = sum(each.active * each.inputs for each in adapted)
    kept += 1.4 * 4 * trained.rank * sum(each.active for each in adapted)
    kept += 0.8 * size * inputs if trained.dropout else 0
    kept += 0.75 * size * sum(each.active * each.outputs for each in adapted) if trained.kind == "dora" else 0
    # an adapter computes in float32, so half of what it takes is there in both types
    return kept + (0.6 * 4 * inputs if size < 4 else 0)


def _whole(config: Mapping[str, Any], names: tuple[str, ...], otherwise: int) -> int:
    found: Callable[[str], Any] = config.get
    return next((int(value) for name in names if type(value := found(name)) is int and value > 0), otherwise)
