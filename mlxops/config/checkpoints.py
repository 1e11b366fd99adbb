"""Options of the tasks on checkpoints."""

from __future__ import annotations

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class CheckpointsConfig:
    """Settings of the list of checkpoints."""

    run: str | None = option(None, "only this run: its name or a part of it, its number, or latest")
    path: str | None = option(None, "look below this folder, whether the registry knows it or not", path=True)
    all: bool = option(False, "also those that were pruned, and runs without any")
    debug: bool = option(False, "explain each step of the reasoning, as debug-checkpoints does")
    use: str | None = option(
        None,
        "offer this checkpoint from now on: RUN:best, RUN:last, RUN:ITERATION",
    )
    verify: bool = option(False, "read every checkpoint through and compare its hashes")
    prune: bool = option(False, "show what would be deleted; with --yes delete it")
    keep_last: int | None = option(None, "with --prune: keep this many of the newest", at_least=1, at_most=HUGE)
    keep_best: bool = option(False, "with --prune: keep nothing else but the best and the newest")
    keep_every: int | None = option(None, "with --prune: keep iterations divisible by this", at_least=1, at_most=HUGE)
    yes: bool = option(False, "do not ask")
    json: bool = option(False, "as JSON")


@settings
class DebugCheckpointsConfig:
    """Settings of the explanation of a folder."""

    dir: str = option("", "adapter folder; the project's unless given", positional=True, path=True)
    target_iters: int | None = option(None, "iterations that are wanted in all", at_least=1, at_most=HUGE)
    json: bool = option(False, "as JSON")
