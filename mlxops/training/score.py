"""How the log-probabilities are computed that an objective is made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxops.training.batches import Batch, projected
from mlxops.training.forward import Forward
from mlxops.training.objectives.terms import Arrays, Score
from mlxops.training.ways import EXACT, TRAINED

_BLOCK = 128  # scores added up by themselves; the usual vocabularies are a multiple of it
_WHOLE = 2**24
"""The most logits that are computed at once."""
_PIECE, _FEWEST = 2**22, 32
"""The logits of a piece, and the rows that it has at least: `mlxops/models/memory.py` counts with these numbers."""

Losses = Callable[[mx.array, mx.array], mx.array]
"""Takes logits of shape (…, vocabulary) and targets of shape (…), and gives the loss of each."""


def arrays_of(batch: Batch, *, at_trained: bool = False) -> dict[str, mx.array]:
    """The arrays of a batch as an objective and its score take them.

    `at_trained` adds to each part what `at_trained_positions` goes by: `positions`, int32 of shape (count,), are the
    numbers of the trained positions in the flattened mask, and `is_trained`, bool of the same shape, is False for what
    makes the count one of few.
    """
    arrays = {name: mx.array(each) for name, each in batch.arrays.items()}
    if at_trained:
        for name, mask in batch.arrays.items():
            if name == "mask" or name.endswith(".mask"):
                part = name.removesuffix("mask")
                positions, is_trained = _positions(mask)
                arrays[f"{part}positions"], arrays[f"{part}is_trained"] = mx.array(positions), mx.array(is_trained)
    return arrays


def plain(model: nn.Module, *, way: str = EXACT) -> Score:
    """A score by the model's whole forward pass, in the type of its logits up to the softmax.

    What stands outside the mask counts nothing, whatever it is. `way` is that of the part `loss` (see `ways`).
    """
    return at_every_position(Forward(model), way=way)


def at_every_position(forward: Forward, *, way: str = EXACT) -> Score:
    """The same score by a forward pass that may begin at the first trained layer, with a part's `hidden`."""
    losses = _losses_of(way)

    def score(part: Arrays) -> mx.array:
        tokens, mask = part["tokens"], part["mask"]
        logits = forward.logits(tokens[:, :-1], hidden=part.get("hidden"))
        return -mx.where(mask, losses(logits, tokens[:, 1:]).astype(mx.float32), 0.0)

    return score


def at_trained_positions(forward: Forward) -> Score:
    """A score for which the vocabulary is projected at trained positions alone.

    With a frozen head and more logits than `_WHOLE`, that is done in pieces, whose gradient is made together with
    them: the logits of one piece are then all there are.
    """
    losses = _losses_of(TRAINED)

    def score(part: Arrays) -> mx.array:
        tokens, mask, positions = part["tokens"], part["mask"], part["positions"]
        targets = tokens[:, 1:].reshape(-1)[positions]
        entering: list[mx.array] = []

        def choose(hidden: mx.array) -> mx.array:
            entering.append(hidden.reshape(-1, hidden.shape[-1])[positions])
            return entering[0][None]

        logits = forward.logits(tokens[:, :-1], hidden=part.get("hidden"), choose=choose)
        if forward.is_head_frozen and logits.size > _WHOLE:
            rows = max(_FEWEST, _PIECE // logits.shape[-1])
            found = _in_pieces(forward, losses, rows)(entering[0], targets)
        else:
            found = losses(logits, targets[None])[0].astype(mx.float32)
        scores = mx.zeros(mask.size).at[positions].add(mx.where(part["is_trained"], -found, 0.0))
        return scores.reshape(mask.shape)

    return score


def _in_pieces(forward: Forward, losses: Losses, rows: int) -> Callable[[mx.array, mx.array], mx.array]:
    """The losses of what enters a frozen head, so many rows at a time.

    A row's loss depends on that row alone, so its gradient is made at once with it, and only scaled afterwards (as
    fused linear cross-entropy does, e.g. in Liger-Kernel, arXiv:2410.10989).
    """

    def piece(entering: mx.array, targets: mx.array) -> mx.array:
        return losses(forward.from_head(entering), targets[None])[0].astype(mx.float32)

    def pieces(entering: mx.array) -> list[slice]:
        return [slice(start, start + rows) for start in range(0, entering.shape[0], rows)]

    @mx.custom_function
    def with_gradient(entering: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
        found: list[mx.array] = []
        gradients: list[mx.array] = []
        for each in pieces(entering):
            # the loss too: what waits to be computed keeps the logits that it is computed from
            part = _after([*found[-1:], *gradients[-1:]], entering[each])
            (loss,), (gradient,) = mx.vjp(
                partial(_with_targets, piece, targets[each]), [part], [mx.ones(part.shape[0])]
            )
            found.append(loss)
            gradients.append(gradient)
        return mx.concatenate(found), mx.concatenate(gradients)

    @with_gradient.vjp
    def _(primals: list[mx.array], cotangents: list[mx.array], outputs: list[mx.array]) -> tuple[mx.array, mx.array]:
        scale = cotangents[0][:, None]
        return (outputs[1].astype(mx.float32) * scale).astype(primals[0].dtype), mx.zeros_like(primals[1])

    def without_gradient(entering: mx.array, targets: mx.array) -> mx.array:
        found: list[mx.array] = []
        for each in pieces(entering):
            found.append(piece(_after(found[-1:], entering[each]), targets[each]))
        return mx.concatenate(found)

    if not forward.model.training:
        return without_gradient

    def first_of_both(entering: mx.array, targets: mx.array) -> mx.array:
        both: tuple[mx.array, mx.array] = with_gradient(entering, targets)  # type: ignore[assignment]  # an `object`
        return both[0]

    return first_of_both


def _after(before: list[mx.array], array: mx.array) -> mx.array:
    """The same array, computed after others: what it takes is then free again."""
    if not before:
        return array
    (same,) = mx.depends([array], before)
    return same


def _with_targets(piece: Losses, targets: mx.array, entering: mx.array) -> mx.array:
    return piece(entering, targets)


def _positions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The trained positions of a mask, filled up to one of few counts."""
    found = np.flatnonzero(mask)
    count = projected(len(found), mask.size)
    positions = np.full(count, found[0] if len(found) else 0, np.int32)
    positions[: len(found)] = found
    return positions, np.arange(count) < len(found)


def _losses_of(way: str) -> Losses:
    return {TRAINED: _lean_cross_entropy, EXACT: _exact_cross_entropy}.get(way, nn.losses.cross_entropy)


def _lean_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """The exact cross-entropy, whose gradient takes one array of the size of the logits instead of two.

    It is also made of nothing but the logits: an array of zeros would be there before its turn, for every piece.
    """
    if not _is_exact(logits):
        return nn.losses.cross_entropy(logits, targets)

    @mx.custom_function
    def losses(logits: mx.array, targets: mx.array) -> mx.array:
        return _exact_cross_entropy(logits, targets)

    @losses.vjp
    def _(primals: list[mx.array], cotangent: mx.array, losses: mx.array) -> tuple[mx.array, mx.array]:
        logits, targets = primals
        chosen = mx.take_along_axis(logits, targets[..., None], axis=-1)
        shares = mx.exp(logits - (losses[..., None] + chosen))
        is_target = mx.arange(logits.shape[-1]) == targets[..., None]
        return mx.where(is_target, shares - 1, shares) * cotangent[..., None], mx.zeros_like(targets)

    result: mx.array = losses(logits, targets)  # type: ignore[assignment]  # an `object`
    return result


def _is_exact(logits: mx.array) -> bool:
    is_on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return is_on_cpu and logits.dtype == mx.float32 and logits.shape[-1] > _BLOCK


def _exact_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """The cross-entropy to the last digits of float32, also over a large vocabulary on a CPU.

    There MLX adds one small term after the other to a large sum and ends up to 0.0004 nats too low. Sums of blocks, and
    then of these, are right to 0.000002 and take no longer. On a GPU its own function is fast and right, and numbers of
    half precision have no digits to lose.
    """
    if not _is_exact(logits):
        return nn.losses.cross_entropy(logits, targets)
    vocabulary = logits.shape[-1]
    whole = vocabulary - vocabulary % _BLOCK
    blocks = logits if whole == vocabulary else logits[..., :whole]
    sums = mx.logsumexp(blocks.reshape(*logits.shape[:-1], -1, _BLOCK), axis=-1)
    if whole < vocabulary:
        rest = mx.logsumexp(logits[..., whole:], axis=-1, keepdims=True)
        sums = mx.concatenate([sums, rest], axis=-1)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(sums, axis=-1) - chosen
