"""The forward pass of a model, and the parts of it that a training can do with.

Two places are found in a model by looking at what it calls, for any architecture. At its *head*, rows of positions are
chosen before the vocabulary is projected. At its *first trained layer*, the hidden state that enters is taken, or one
that was computed before is put in: what would have computed it is then never evaluated, since MLX evaluates only what
a result depends on. Both are tried on a few tokens first, and again at each shape of a batch where the model's graph is
another one; a model that does anything else with them is computed whole.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxops.training import layers

Change = Callable[[mx.array], mx.array]

_POSITIONS = 9  # tokens of a row that is tried; the last predicts nothing
_CALLS = ("__call__", "as_linear")
_TOLERANCE = {mx.float32: 1e-4, mx.float16: 1e-2, mx.bfloat16: 6e-2}
"""How far a logit may lie off, as a share of the largest: products of another shape add up in another order."""


class Tap:
    """A place before a call of one module, where the first argument can be seen or changed."""

    def __init__(self, module: nn.Module, method: str = "__call__") -> None:
        self._module, self._original = module, type(module)
        self._change: Change | None = None
        self.calls = 0
        called = getattr(self._original, method)

        def tapped(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self._change is None or not args:
                return called(module, *args, **kwargs)
            return called(module, self._change(args[0]), *args[1:], **kwargs)

        # a class of its own for this one module: patching the module's class would change every model in the process
        module.__class__ = type(self._original.__name__, (self._original,), {method: tapped})

    @contextmanager
    def changing(self, change: Change) -> Iterator[None]:
        """Have the first argument of its calls go through `change` while the block runs."""
        self._change = change
        try:
            yield
        finally:
            self._change = None

    def remove(self) -> None:
        """Leave the module as it was."""
        self._module.__class__ = self._original


@dataclass(frozen=True)
class Forward:
    """A model that is ready to train, and the places that were found in it: None where there is no such place.

    `is_head_frozen` says that nothing is trained from the head on, `layers_below` how many layers lie below the first
    trained one, and `position_bytes` what a position takes of what enters it. `notes` say why a place is missing.
    """

    model: nn.Module
    head: Tap | None = None
    first_trained: Tap | None = None
    is_head_frozen: bool = False
    layers_below: int = 0
    position_bytes: int = 0
    notes: tuple[str, ...] = ()

    def logits(self, tokens: mx.array, *, hidden: mx.array | None = None, choose: Change | None = None) -> mx.array:
        """The logits of all positions of the tokens, of shape (rows, width), or of what `choose` makes of them.

        `hidden` is what enters the first trained layer; `choose` takes what enters the head, of shape (rows, width,
        size), and gives what the rest is computed from.
        """
        with ExitStack() as changed:
            if hidden is not None and self.first_trained is not None:
                changed.enter_context(self.first_trained.changing(lambda _: hidden))
            if choose is not None and self.head is not None:
                changed.enter_context(self.head.changing(choose))
            result: mx.array = self.model(tokens)
        return result

    def hidden(self, tokens: mx.array) -> mx.array:
        """What enters the first trained layer; computed as in evaluation, since nothing below is trained."""
        assert self.first_trained is not None
        seen: list[mx.array] = []

        def see(hidden: mx.array) -> mx.array:
            seen.append(hidden)
            return hidden

        was_training = self.model.training
        self.model.eval()
        with self.first_trained.changing(see):
            self.model(tokens)
        self.model.train(was_training)
        return seen[0]

    def from_head(self, entering: mx.array) -> mx.array:
        """The logits of rows of what enters the head, of shape (rows, size); theirs is (1, rows, vocabulary)."""
        assert self.head is not None
        with self.head.changing(lambda _: entering[None]):
            result: mx.array = self.model(mx.zeros((1, 1), mx.int32))
        return result


def look(
    model: nn.Module,
    tokens: np.ndarray,
    *,
    shapes: Iterable[tuple[int, int]] = (),
    at_head: bool,
    at_first_trained: bool,
) -> Forward:
    """Find the places that are asked for in a model that `layers.prepare` made ready, and try them on these tokens.

    `tokens` is of shape (rows, width); the first few are enough. `shapes` are those that a training has, as (rows,
    width): at each the model is traced, and where it does anything else than before, it is tried at that width too.
    """
    few = mx.array(tokens[:2, :_POSITIONS])
    later = {shape: mx.array(np.resize(tokens, shape)) for shape in sorted(set(shapes))}
    was_training = model.training
    model.eval()
    notes: list[str] = []
    head = first_trained = None
    position_bytes = 0
    if at_head:
        head = _try_head(model, few, later.values())
        if head is None:
            notes.append("the loss is computed at every position: the model's head cannot be told from the rest")
    first = _first_trained(model)
    if at_first_trained and first:
        first_trained, position_bytes, why = _try_first_trained(model, first, few, later.values(), head)
        if first_trained is None:
            notes.append(f"the layers below the first trained one are computed at every step: {why}")
    model.train(was_training)
    return Forward(
        model=model,
        head=head,
        first_trained=first_trained,
        is_head_frozen=_trained_elsewhere(model) == 0,
        layers_below=first if first_trained else 0,
        position_bytes=position_bytes,
        notes=tuple(notes),
    )


def holds_at(found: Forward, tokens: np.ndarray, shapes: Iterable[tuple[int, int]]) -> bool:
    """Whether the places that were found are there at further shapes, too."""
    further = sorted(set(shapes))
    if not further:
        return True
    head, first_trained = found.head is not None, found.first_trained is not None
    again = look(found.model, tokens, shapes=further, at_head=head, at_first_trained=first_trained)
    for tap in (again.first_trained, again.head):
        if tap is not None:
            tap.remove()
    return (again.head is not None, again.first_trained is not None) == (head, first_trained)


def _holds(few: mx.array, later: Iterable[mx.array], graph_at: Change, is_same: Callable[[mx.array], bool]) -> bool:
    """Whether a place does what is wanted of it on few tokens, and wherever the graph from it on is another one."""
    if not is_same(few):
        return False
    seen = {_graph(graph_at(few))}
    for tokens in later:
        graph = _graph(graph_at(tokens))
        if graph not in seen:
            seen.add(graph)
            if not is_same(tokens[:1]):
                return False
    return True


def _graph(result: mx.array) -> str:
    """What is computed for an array, of what, without the sizes of it; nothing is computed for that."""
    text = io.StringIO()
    mx.export_to_dot(text, result)
    return re.sub(r"\d{4,}", "", text.getvalue())  # the addresses of the operations


def _try_head(model: nn.Module, few: mx.array, later: Iterable[mx.array]) -> Tap | None:
    found = _last_call(model, few)
    if found is None:
        return None
    tap = Tap(*found)
    forward = Forward(model, head=tap)
    sizes: list[int] = []

    def is_same(tokens: mx.array) -> bool:
        # of more than a few tokens the logits of the last ones, since all of them may take gigabytes
        is_few = tokens.size <= few.size
        whole = model(tokens) if is_few else forward.logits(tokens, choose=_last)
        inside = mx.array([1, whole.size // whole.shape[-1] - 1, 2])
        places = inside if is_few else inside + tokens.size - _POSITIONS
        entering: list[mx.array] = []

        def choose(hidden: mx.array) -> mx.array:
            entering.append(hidden.reshape(-1, hidden.shape[-1])[places])
            return entering[0][None]

        before = tap.calls
        chosen = forward.logits(tokens, choose=choose)
        calls = tap.calls - before
        wanted = whole.reshape(-1, whole.shape[-1])[inside]
        sizes.append(entering[0].shape[-1])
        return calls == 1 and _is_close(chosen[0], wanted) and _is_close(forward.from_head(entering[0])[0], wanted)

    def from_head(tokens: mx.array) -> mx.array:
        return forward.logits(tokens, choose=lambda hidden: mx.zeros((*tokens.shape, sizes[0]), hidden.dtype))

    try:
        if _holds(few, later, from_head, is_same):
            return tap
    except (ValueError, IndexError, TypeError, RuntimeError):
        pass  # what follows the head takes the shape of a batch for granted
    tap.remove()
    return None


def _last_call(model: nn.Module, few: mx.array) -> tuple[nn.Module, str] | None:
    """The last module with weights of its own that is called outside the layers, and by which method."""
    inside = {id(each) for layer in model.layers if isinstance(layer, nn.Module) for each in layer.modules()}
    outside = [each for each in model.modules() if id(each) not in inside and not each.children()]
    seen: list[tuple[nn.Module, str]] = []
    taps: list[tuple[Tap, ExitStack]] = []

    def watch(module: nn.Module, method: str) -> None:
        tap, stack = Tap(module, method), ExitStack()

        def see(entering: mx.array) -> mx.array:
            seen.append((module, method))
            return entering

        stack.enter_context(tap.changing(see))
        taps.append((tap, stack))

    for module in outside:
        if tree_flatten(module.parameters()):
            for method in _CALLS:
                if hasattr(type(module), method):
                    watch(module, method)
    model(few)
    for tap, stack in reversed(taps):
        stack.close()
        tap.remove()
    return seen[-1] if seen else None


def _first_trained(model: nn.Module) -> int:
    """The number of the first layer with anything trained; 0 also where there is something to train before it."""
    trained = [
        place
        for place, layer in enumerate(model.layers)
        if isinstance(layer, nn.Module) and tree_flatten(layer.trainable_parameters())
    ]
    return 0 if not trained or _trained_elsewhere(model) else trained[0]


def _trained_elsewhere(model: nn.Module) -> int:
    """How many trained arrays lie outside the layers."""
    inside = sum(len(tree_flatten(each.trainable_parameters())) for each in model.layers if isinstance(each, nn.Module))
    return len(layers.trainable(model)) - inside


def _try_first_trained(
    model: nn.Module, first: int, few: mx.array, later: Iterable[mx.array], head: Tap | None
) -> tuple[Tap | None, int, str]:
    below = {id(each) for layer in model.layers[:first] for each in layer.modules()}
    above = {id(each) for layer in model.layers[first:] for each in layer.modules()}
    if any(id(each) in below or id(each) not in above for each in layers.dropouts(model)):
        return None, 0, "there is dropout among them"
    tap, lowest = Tap(model.layers[first]), Tap(model.layers[0])
    forward = Forward(model, head=head, first_trained=tap)

    def is_same(tokens: mx.array) -> bool:
        hidden = forward.hidden(tokens)
        whole = forward.logits(tokens, choose=_last)
        before = tap.calls
        # what still comes from below, by another way, is then not a number
        with lowest.changing(lambda entering: entering * mx.nan):
            apart = forward.logits(tokens, hidden=hidden, choose=_last)
        return tap.calls - before == 1 and _is_close(apart, whole)

    try:
        hidden = forward.hidden(few)
        shape, dtype = hidden.shape[2:], hidden.dtype
        if _holds(
            few, later, lambda tokens: forward.logits(tokens, hidden=mx.zeros((*tokens.shape, *shape), dtype)), is_same
        ):
            return tap, hidden.nbytes // few.size, ""
    except (IndexError, AttributeError, TypeError):
        pass  # a hidden state that is no array, or is not the first argument
    finally:
        lowest.remove()
    tap.remove()
    return None, 0, "more than one array goes from them to those above"


def _last(entering: mx.array) -> mx.array:
    """What enters the head at the last few positions of rows."""
    return entering[:, -_POSITIONS:]


def _is_close(found: mx.array, wanted: mx.array) -> bool:
    if found.shape != wanted.shape:
        return False
    limit = _TOLERANCE.get(wanted.dtype, 1e-2) * mx.abs(wanted).max().astype(mx.float32)
    return bool((mx.abs(found.astype(mx.float32) - wanted.astype(mx.float32)).max() <= limit).item())
