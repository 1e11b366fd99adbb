"""What may be removed of a run's checkpoints: a pure function of what there is and what is to be kept.

Nothing here touches a file or a row; who acts on a plan marks the row first and removes all states before any adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxops.config import LoraConfig


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A checkpoint that is on disk. `has_state` tells that a run can resume from it."""

    iteration: int
    has_state: bool
    adapter_bytes: int
    state_bytes: int
    is_best: bool
    is_branch_point: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The iterations whose state goes, those whose adapter goes, and the bytes that frees."""

    states: tuple[int, ...] = ()
    adapters: tuple[int, ...] = ()
    bytes: int = 0


def plan(
    checkpoints: Sequence[Kept], *, keep_last: int | None, keep_best: bool = False, keep_every: int | None = None
) -> Plan:
    """What goes when this is to be kept; without any wish nothing does.

    The best, the newest that a run can resume from, the newest of all and branch points never go. `keep_every` keeps
    the weights of the iterations it divides: nothing resumes from an old state, and it is the larger part.
    """
    if keep_last is None and keep_every is None and not keep_best:
        return Plan()
    newest_first = sorted(checkpoints, key=lambda each: each.iteration, reverse=True)
    whole = _protected(newest_first) | {each.iteration for each in newest_first[: keep_last or 0]}
    goes = [each for each in reversed(newest_first) if each.iteration not in whole]
    states = [each for each in goes if each.has_state]
    adapters = [each for each in goes if keep_every is None or each.iteration % keep_every]
    return Plan(
        states=tuple(each.iteration for each in states),
        adapters=tuple(each.iteration for each in adapters),
        bytes=sum(each.state_bytes for each in states) + sum(each.adapter_bytes for each in adapters),
    )


def _protected(newest_first: Sequence[Kept]) -> set[int]:
    newest_whole = next((each.iteration for each in newest_first if each.has_state), None)
    never = {each.iteration for each in newest_first[:1]}
    never |= {each.iteration for each in newest_first if each.is_best or each.is_branch_point}
    return never if newest_whole is None else never | {newest_whole}


_COPIES = {"adam": 2, "adamw": 2, "muon": 1, "sgd": 1, "adafactor": 1}
"""Arrays of the size of the weights that an optimizer keeps."""


def checkpoint_bytes(config: LoraConfig, trainable: Mapping[str, Any]) -> int:
    """About how large one checkpoint is: the weights, the optimizer's state, and accumulated gradients."""
    weights = sum(value.nbytes for value in trainable.values())
    return weights * (1 + _COPIES[config.optimizer] + (config.grad_accumulation_steps > 1))


def checkpoints_to_come(config: LoraConfig, iteration: int, target: int) -> int:
    """How many checkpoints are written from `iteration` to `target`, and kept as far as that is limited.

    Those that only a lowest validation loss makes come on top.
    """
    count = max(1, -(-target // config.save_every) - iteration // config.save_every)
    # beside the last few there are the best, and the newest before an older one goes
    return count if config.keep_last is None else min(count, config.keep_last + 2)
