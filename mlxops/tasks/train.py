"""Training, and watching it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from mlxops.config import LoraConfig, MonitorConfig
from mlxops.tasks import house
from mlxops.tasks.house import task

if TYPE_CHECKING:
    from rich.console import Console

    from mlxops.jobs.train import Begun


@task
def lora(c: Context, config: LoraConfig) -> None:
    """Fine-tune a model; the same command again goes on where it stopped.

    Every run is a row of the registry. Ctrl-C saves a checkpoint and stops; so do SIGTERM and a closed terminal.
    --preview says what would happen and starts nothing.
    """
    from mlxops.jobs import train
    from mlxops.ui import console, outcome, progress

    screen = console.make(stderr=True)
    with progress.bars(screen) as advance:
        training = train.check(house.settings(c), config, advance)
    if config.preview:
        return outcome.preview(train.preview(training), console.make(), as_json=config.json)
    with train.begin(training) as run:
        work(run, screen)
        return outcome.trained(run.summary(), console.make(), was_finished=run.is_finished, as_json=config.json)


def work(run: Begun, screen: Console) -> None:
    """Train a run to its target on the screen; a finished one has nothing left to do."""
    from mlxops.ui import live

    if run.is_finished:
        return
    with live.screen(
        screen,
        run_name=run.claim.name,
        target=run.training.prepared.target,
        iteration=run.iteration,
        lines=run.lines,
        curve=run.curve(),
    ) as shown:
        run.work(listeners=[shown.show], before_leaving=live.restore)


@task
def monitor(c: Context, config: MonitorConfig) -> None:
    """Watch a run from any terminal: progress, losses, time left."""
    from mlxops.jobs import history
    from mlxops.ui import console, monitor, show

    screen = console.make()
    with history.Watch(house.settings(c), config.run) as run:
        if config.json:
            show.json_out(run.state(), screen)
        elif config.once:
            monitor.once(run.state(), screen, history.now())
        else:
            monitor.live(run.state, screen, refresh=config.refresh, changed=run.changed, switch=run.switch)
