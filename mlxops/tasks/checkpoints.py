"""Checkpoints: what is on disk, what it means, what is offered, what can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from mlxops.config import CheckpointsConfig, DebugCheckpointsConfig
from mlxops.tasks import house
from mlxops.tasks.house import task

if TYPE_CHECKING:
    from mlxops.projects.invocation import Invocation


@task
def checkpoints(c: Context, config: CheckpointsConfig) -> None:
    """List the checkpoints: whole or not, best, which is resumed.

    --use makes one of them what the run offers; --verify reads all through; --prune removes what is not to be kept;
    --debug explains each step of the reasoning.
    """
    from mlxops.jobs.checkpoints import listing as job

    invocation = house.invocation(c)
    job.check(config)
    if config.use is not None:
        return _use(invocation, config)
    if config.verify:
        return _verify(invocation, config)
    if config.prune:
        return _prune(invocation, config)
    if config.debug:
        return _explain(invocation, path=config.path, run=config.run, target=None, as_json=config.json)
    return _list(invocation, config)


@task(name="debug-checkpoints")
def debug_checkpoints(c: Context, config: DebugCheckpointsConfig) -> None:
    """Explain an adapter folder, and what resuming there does.

    Everything is read through and nothing written. Below another folder, every adapter folder is explained.
    """
    _explain(house.invocation(c), path=config.dir or None, run=None, target=config.target_iters, as_json=config.json)


def _list(invocation: Invocation, config: CheckpointsConfig) -> None:
    from mlxops import times
    from mlxops.jobs.checkpoints import listing as job
    from mlxops.ui.checkpoints import listing as drawing
    from mlxops.ui.terminal import console, tables

    found = job.listing(invocation, config)
    if config.json:
        tables.json_out(found.to_json(), console.make())
    else:
        drawing.listing(found, console.make(), times.now(), show_all=config.all)


def _explain(invocation: Invocation, *, path: str | None, run: str | None, target: int | None, as_json: bool) -> None:
    from mlxops.jobs.checkpoints import explain as job
    from mlxops.ui.checkpoints import explain as drawing
    from mlxops.ui.terminal import console, progress, tables

    with progress.bars(console.make(stderr=True), of_bytes=True) as advance:
        found = job.explain(invocation, path=path, run=run, target=target, progress=advance)
    if as_json:
        tables.json_out(found, console.make())
    else:
        drawing.explanations(found, console.make())


def _use(invocation: Invocation, config: CheckpointsConfig) -> None:
    from mlxops.jobs.checkpoints import use
    from mlxops.ui.checkpoints import listing as drawing
    from mlxops.ui.terminal import console, tables

    chosen = use.use(invocation, config)
    if config.json:
        tables.json_out(chosen, console.make())
    else:
        drawing.offered(chosen, console.make())


def _verify(invocation: Invocation, config: CheckpointsConfig) -> None:
    from mlxops.jobs.checkpoints import verify
    from mlxops.ui.checkpoints import listing as drawing
    from mlxops.ui.terminal import console, progress, tables

    with progress.bars(console.make(stderr=True), of_bytes=True) as advance:
        found = verify.verify(invocation, config, advance)
    if config.json:
        tables.json_out(found, console.make())
    else:
        drawing.verification(found, console.make())
    verify.check(found)


def _prune(invocation: Invocation, config: CheckpointsConfig) -> None:
    from functools import partial

    from mlxops.jobs.checkpoints import prune
    from mlxops.ui.checkpoints import listing as drawing
    from mlxops.ui.terminal import console, tables

    agree = partial(drawing.agree, console.make(stderr=True))
    done = prune.prune(invocation, config, agree)
    if config.json:
        tables.json_out(done, console.make())
    else:
        drawing.pruning(done, console.make(), is_done=True)


COLLECTION = "train"
TASKS = (checkpoints, debug_checkpoints)
SHORT_NAMES = {"checkpoints": checkpoints, "debug-checkpoints": debug_checkpoints}
