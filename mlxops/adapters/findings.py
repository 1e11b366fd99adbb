"""What the evidence of an adapter folder proves: a pure function.

The folder may be ours, mlx-lm's, another program's, or a mixture. Each rule is a function of its own and says one
thing; the newest weights of its training are told from leftovers by what the files say, not by their names alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mlxops import words
from mlxops.adapters.evidence import Evidence, Recorded, Shape, State, Tensors, Weights

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the evidence shows, in a sentence, and the iterations it is about."""

    kind: str
    message: str
    level: Level = "warning"
    iterations: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Newest:
    """The newest weights that belong to the folder's training; `iteration` is None where nothing tells it."""

    name: str
    iteration: int | None
    reason: str


def findings(evidence: Evidence) -> list[Finding]:
    """Everything worth saying about a folder, in the order of the rules."""
    return [found for rule in _RULES for found in rule(evidence)]


def newest(evidence: Evidence) -> Newest | None:
    """Which weights are the last word of the folder's training, None where none can be used.

    Leftovers of an earlier training do not count, whatever their number.
    """
    left_over = _left_over(evidence)
    usable = [each for each in evidence.numbered if _is_usable(each) and each.iteration not in left_over]
    offered = evidence.offered if evidence.offered and _is_usable(evidence.offered) else None
    last = usable[-1] if usable else None
    if last is None:
        return _final(evidence, offered, "it is the only one that can be used") if offered else None
    if offered is None or _same(offered, last) or (evidence.shape and evidence.shape.is_ours):
        return Newest(name=last.name, iteration=last.iteration, reason="the highest iteration of this training")
    if _same_layout(offered, last) and offered.modified > last.modified and not _twin(evidence):
        return _final(evidence, offered, f"it was written after {last.name}, and is none of the numbered ones")
    return Newest(name=last.name, iteration=last.iteration, reason="the highest iteration of this training")


# the rules -----------------------------------------------------------------------------------------------------------


def _unreadable(evidence: Evidence) -> Iterator[Finding]:
    for each in _all(evidence):
        if each.problem:
            iterations = () if each.iteration is None else (each.iteration,)
            yield Finding(
                kind="unreadable", level="error", message=f"{each.name} {each.problem}", iterations=iterations
            )


def _not_finite(evidence: Evidence) -> Iterator[Finding]:
    for each in evidence.weights:
        if each.not_finite:
            message = f"{each.name} holds numbers that are not finite, in {words.listed(each.not_finite, 1)}"
            yield Finding(kind="not finite", level="error", message=message, iterations=_of(each))


def _misnamed(evidence: Evidence) -> Iterator[Finding]:
    for each in evidence.numbered:
        if each.says is not None and each.says != each.iteration:
            message = f"{each.name} says of itself that it is of iteration {each.says:,}"
            yield Finding(kind="misnamed", message=message, iterations=_of(each))


def _halves(evidence: Evidence) -> Iterator[Finding]:
    """States without weights, and the other way round where this is a folder of ours."""
    weights = {each.iteration for each in evidence.numbered}
    states = {each.iteration for each in evidence.states}
    for iteration in sorted(states - weights):
        message = f"iteration {iteration:,} has its state and not its weights: nothing can resume from it"
        yield Finding(kind="state alone", level="error", message=message, iterations=(iteration,))
    alone = tuple(sorted(each for each in weights - states if each is not None))
    if alone and (states or (evidence.shape and evidence.shape.is_ours)):
        message = f"{_iterations(alone)} {_has(alone)} weights alone, without the state that resuming exactly takes"
        yield Finding(kind="weights alone", level="info", message=message, iterations=alone)


def _other_weights(evidence: Evidence) -> Iterator[Finding]:
    """A state that was written with other weights than those beside it."""
    by_iteration = {each.iteration: each for each in evidence.numbered}
    for state in evidence.states:
        weights = by_iteration.get(state.iteration)
        if weights and weights.sha256 and state.adapter_sha256 and weights.sha256 != state.adapter_sha256:
            message = f"{weights.name} is not what {state.name} was written with (SHA-256)"
            yield Finding(kind="damaged", level="error", message=message, iterations=(state.iteration,))


def _against_the_registry(evidence: Evidence) -> Iterator[Finding]:
    there = {each.iteration: each for each in evidence.numbered}
    states = {each.iteration for each in evidence.states}
    for row in evidence.recorded:
        words = _contradiction(row, there.pop(row.iteration, None), has_state=row.iteration in states)
        if words:
            yield Finding(kind="registry", level="error", message=words, iterations=(row.iteration,))
    unknown = tuple(sorted(each for each in there if each is not None)) if evidence.recorded else ()
    if unknown:
        message = f"the registry has no row of {_iterations(unknown)}"
        yield Finding(kind="registry", message=message, iterations=unknown)


def _contradiction(row: Recorded, weights: Weights | None, *, has_state: bool) -> str | None:
    if row.status == "pruned" and weights is not None:
        return f"the registry calls iteration {row.iteration:,} pruned, and its weights are here"
    if row.status != "whole":
        return None
    if weights is None:
        return f"the registry calls iteration {row.iteration:,} whole, and its weights are not here"
    if row.has_state and not has_state:
        return f"the registry knows a state of iteration {row.iteration:,}, and it is not here"
    if weights.sha256 and row.adapter_sha256 and weights.sha256 != row.adapter_sha256:
        return f"{weights.name} is not what the registry recorded (SHA-256)"
    return None


def _older_than_settings(evidence: Evidence) -> Iterator[Finding]:
    """mlx-lm writes its settings when it begins, so numbered files older than them are of an earlier training.

    Ours writes them at every start, also when it continues, and has fingerprints to tell.
    """
    shape = evidence.shape
    if shape is None or shape.is_ours or not shape.modified:
        return
    old = tuple(each.iteration or 0 for each in evidence.numbered if each.modified < shape.modified - 1)
    if old and all(each.modified < shape.modified - 1 for each in evidence.weights):
        message = "all weights are older than adapter_config.json: it was changed later, or a training that restarted"
        yield Finding(kind="older", message=f"{message} ended before it saved anything", iterations=())
    elif old:
        message = f"{_iterations(old)} {_is(old)} older than adapter_config.json: left over from an earlier training"
        yield Finding(kind="left over", message=message, iterations=old)


def _beyond_the_settings(evidence: Evidence) -> Iterator[Finding]:
    shape = evidence.shape
    if shape is None or shape.is_ours or shape.target is None:
        return
    beyond = tuple(each.iteration or 0 for each in evidence.numbered if (each.iteration or 0) > shape.target)
    if beyond:
        message = f"{_iterations(beyond)} {_is(beyond)} beyond the {shape.target:,} that adapter_config.json trains for"
        yield Finding(kind="beyond", message=f"{message}: left over from an earlier training", iterations=beyond)


def _out_of_order(evidence: Evidence) -> Iterator[Finding]:
    """A higher iteration that was written before a lower one was not written by the same training."""
    if evidence.shape is not None and evidence.shape.is_ours:
        return
    newest_first = evidence.numbered[::-1]
    early = tuple(
        sorted(
            each.iteration or 0
            for place, each in enumerate(newest_first)
            if any(each.modified < lower.modified - 1 for lower in newest_first[place + 1 :])
        )
    )
    if early:
        message = f"{_iterations(early)} {_is(early)} older than a lower iteration: the numbering restarted after it"
        yield Finding(kind="out of order", message=message, iterations=early)


def _mixed_fingerprints(evidence: Evidence) -> Iterator[Finding]:
    known = [(each.iteration, each.fingerprint) for each in _all(evidence)]
    counted = Counter(fingerprint for _, fingerprint in known if fingerprint)
    ours = evidence.shape.fingerprint if evidence.shape else None
    if ours is None and len(counted) > 1:
        ours = counted.most_common(1)[0][0]
    others = tuple(sorted({each or 0 for each, fingerprint in known if ours and fingerprint and fingerprint != ours}))
    if others:
        message = f"{_iterations(others)} {_is(others)} of a run with other settings (fingerprint): two runs are mixed"
        yield Finding(kind="mixed", level="error", message=message, iterations=others)


def _mixed_layouts(evidence: Evidence) -> Iterator[Finding]:
    readable = [each for each in evidence.weights if each.tensors]
    layouts = Counter(_layout(each) for each in readable)
    if len(layouts) < 2:
        return
    standard = next((_layout(each) for each in readable if each.iteration is None), layouts.most_common(1)[0][0])
    others = tuple(each for each in readable if _layout(each) != standard)
    names = words.listed([each.name for each in others], 3)
    iterations = tuple(sorted(each.iteration for each in others if each.iteration is not None))
    message = f"{names}: other arrays or shapes than the rest: two trainings are mixed"
    yield Finding(kind="mixed", level="error", message=message, iterations=iterations)


def _against_the_settings(evidence: Evidence) -> Iterator[Finding]:
    """An `adapter_config.json` that describes another adapter than the one beside it, which mlx-lm would not load."""
    sample = evidence.offered if evidence.offered and evidence.offered.tensors else None
    sample = sample or next((each for each in reversed(evidence.numbered) if each.tensors), None)
    if sample is None or evidence.shape is None:
        return
    for mismatch in _mismatches(evidence.shape, sample.tensors):
        message = f"adapter_config.json does not match {sample.name}: {mismatch}"
        yield Finding(kind="does not match", level="error", message=message, iterations=_of(sample))


def _mismatches(shape: Shape, tensors: Tensors) -> Iterator[str]:
    is_lora = any(name.endswith((".lora_a", ".lora_b")) for name in tensors)
    if is_lora and shape.kind == "full":
        yield "it says that all weights are trained, and there are only those of an adapter"
        return
    if not is_lora:
        if shape.kind != "full":
            yield f"it says {shape.kind}, and there is no lora_a or lora_b"
        return
    ranks = {
        dimensions[0] for name, (_, dimensions) in tensors.items() if name.endswith(".lora_b") and len(dimensions) == 2
    }
    if shape.rank is not None and ranks and ranks != {shape.rank}:
        yield f"it says rank {shape.rank}, and the arrays have {_list(sorted(ranks))}"
    places = {place for name in tensors if (place := _layer(name)) is not None}
    if shape.layers is not None and shape.layers >= 0 and places:
        is_small_model = min(places) == 0  # of which all layers are trained, however many were asked for
        if len(places) > shape.layers or (len(places) < shape.layers and not is_small_model):
            yield f"it says {shape.layers} layers, and there are arrays of {len(places)}"
    keys = tuple(sorted({key for name in tensors if (key := _key(name)) is not None}))
    if shape.keys is not None and keys and set(keys) != set(shape.keys):
        yield f"it says the keys {', '.join(shape.keys)}, and there are {', '.join(keys)}"


def _final_beside_numbered(evidence: Evidence) -> Iterator[Finding]:
    offered, numbered = evidence.offered, evidence.numbered
    if offered is None or not numbered:
        return
    twin = _twin(evidence)
    if twin is not None:
        is_last = twin is numbered[-1]
        message = f"{offered.name} is a copy of {twin.name}" + ("" if is_last else ", which is not the newest")
        yield Finding(kind="final", level="info", message=message, iterations=_of(twin))
    elif offered.sha256 is not None:
        when = "after" if offered.modified > numbered[-1].modified else "before"
        message = f"{offered.name} is none of the numbered ones, and was written {when} {numbered[-1].name}"
        yield Finding(kind="final", level="info", message=message)


def _target(evidence: Evidence) -> Iterator[Finding]:
    left_over = _left_over(evidence)
    there = max((each.iteration or 0 for each in evidence.numbered if each.iteration not in left_over), default=0)
    if evidence.target is not None and evidence.target < there:
        message = f"iteration {there:,} is there and {evidence.target:,} are asked for: training never goes back"
        yield Finding(kind="target below", level="info", message=message, iterations=(there,))


_RULES = (
    _unreadable,
    _not_finite,
    _misnamed,
    _halves,
    _other_weights,
    _against_the_registry,
    _older_than_settings,
    _beyond_the_settings,
    _out_of_order,
    _mixed_fingerprints,
    _mixed_layouts,
    _against_the_settings,
    _final_beside_numbered,
    _target,
)
_OF_LEFT_OVERS = (_older_than_settings, _beyond_the_settings, _out_of_order, _mixed_fingerprints, _mixed_layouts)


def _left_over(evidence: Evidence) -> set[int]:
    """The iterations that are of another training than the folder's last."""
    return {each for rule in _OF_LEFT_OVERS for found in rule(evidence) for each in found.iterations}


# words and small questions -------------------------------------------------------------------------------------------


def _is_usable(weights: Weights) -> bool:
    return weights.problem is None and not weights.not_finite


def _twin(evidence: Evidence) -> Weights | None:
    """The newest numbered file with the same bytes as the offered one."""
    offered = evidence.offered
    return next((each for each in reversed(evidence.numbered) if offered and _same(offered, each)), None)


def _same(one: Weights, other: Weights) -> bool:
    return one.sha256 is not None and one.sha256 == other.sha256


def _same_layout(one: Weights, other: Weights) -> bool:
    return _layout(one) == _layout(other)


def _layout(weights: Weights) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((name, shape) for name, (_, shape) in weights.tensors.items())


def _final(evidence: Evidence, offered: Weights, reason: str) -> Newest:
    """The offered file as the newest: mlx-lm writes it last, when its target is reached."""
    target = evidence.shape.target if evidence.shape else None
    return Newest(name=offered.name, iteration=target if offered.says is None else offered.says, reason=reason)


def _all(evidence: Evidence) -> tuple[Weights | State, ...]:
    return (*evidence.weights, *evidence.states)


def _of(weights: Weights) -> tuple[int, ...]:
    return () if weights.iteration is None else (weights.iteration,)


def _layer(name: str) -> int | None:
    number = name.partition("layers.")[2].partition(".")[0]
    return int(number) if number.isdigit() else None


def _key(name: str) -> str | None:
    """The module within its layer that an array of an adapter belongs to."""
    stem, dot, part = name.rpartition(".")
    _, _, rest = stem.partition("layers.")
    key = rest.partition(".")[2]
    return key if dot and part in ("lora_a", "lora_b") and key else None


def _iterations(numbers: Sequence[int]) -> str:
    shown = [f"{number:,}" for number in numbers[:5]]
    more = [f"{len(numbers) - 5:,} more"] if len(numbers) > 5 else []
    return f"{'iterations' if len(numbers) > 1 else 'iteration'} {_list([*shown, *more])}"


def _list(values: Sequence[object]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def _is(numbers: Sequence[int]) -> str:
    return "are" if len(numbers) > 1 else "is"


def _has(numbers: Sequence[int]) -> str:
    return "have" if len(numbers) > 1 else "has"
