"""Training, and watching it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from invoke import Context
from invoke.exceptions import Exit

from mlxops.config import FinetuneConfig, FuseConfig, LoraConfig, MonitorConfig, ResumeConfig, StopConfig
from mlxops.tasks import house
from mlxops.tasks.house import task

if TYPE_CHECKING:
    from rich.console import Console

    from mlxops.jobs.train.outcome import TrainingOutcome
    from mlxops.jobs.train.session import Begun, Training
    from mlxops.projects.invocation import Invocation
    from mlxops.registry import RunSummaryView


@task
def lora(c: Context, config: LoraConfig) -> None:
    """Fine-tune a model; the same command again resumes exactly.

    Every run is a row of the registry. Ctrl-C saves a checkpoint and stops; so do SIGTERM and a closed terminal.
    --preview says what would happen and starts nothing; --detach trains in the background.
    """
    from mlxops.jobs.train import lora as job
    from mlxops.ui.terminal import console
    from mlxops.ui.train import outcome

    invocation = house.invocation(c)
    asked = job.settings_of(invocation.project, config)
    outcome.translated(asked.notes, console.make(stderr=True))
    train(invocation, asked.config)


@task
def finetune(c: Context, config: FinetuneConfig) -> None:
    """Fine-tune a model by epochs: `lora` under other names.

    Options have the names of the older toolkit and of PEFT. --full trains the layers themselves. The run is one like
    any other: the same command again resumes exactly. --output makes one model of what was trained.
    """
    from mlxops.jobs.train import finetune as job
    from mlxops.ui.terminal import console
    from mlxops.ui.train import outcome

    asked = job.translate(config)
    outcome.translated(asked.notes, console.make(stderr=True))
    invocation = house.invocation(c)
    job.check_output(invocation.project, config)
    train(invocation, asked.config, partial(job.fusing, config))


def train(
    invocation: Invocation, config: LoraConfig, fusing: Callable[[RunSummaryView], FuseConfig | None] = lambda run: None
) -> None:
    """Preview, verify or train; what was trained here is then fused as `fusing` says."""
    from mlxops.jobs.train import detach, session
    from mlxops.jobs.train import outcome as job
    from mlxops.ui.terminal import console, progress
    from mlxops.ui.train import outcome

    screen = console.make(stderr=True)
    config = with_model(invocation, config, screen)
    with progress.bars(screen) as advance:
        training = session.check(invocation, config, advance)
    if config.preview:
        preview(training, as_json=config.json)
        return
    if config.verify_resume:
        verify(training, screen, as_json=config.json)
        return
    if detach.is_wanted(training) and (started := detach.start(training, partial(progress.waiting, screen))):
        outcome.started(started, console.make(), as_json=config.json)
        return
    with session.begin(training) as run:
        work(run, screen)
        wanted = fusing(run.summary())
        with progress.bars(screen) as advance:
            found = job.find_out(run, advance, is_fused=wanted is not None)
    if not (config.json and wanted):
        outcome.trained(found, console.make(), as_json=config.json)
    if wanted is not None:
        fuse(invocation, wanted, found, screen, as_json=config.json)


def with_model(invocation: Invocation, config: LoraConfig, screen: Console) -> LoraConfig:
    """The settings with the hub's model that was downloaded, before or now if the person at the terminal wants it."""
    from mlxops.jobs.model import download as job
    from mlxops.ui.terminal import confirm, progress

    wanted = job.offered(invocation.project, config.model)
    if wanted is not None and confirm.can_ask(screen):
        plan = job.plan(invocation, wanted)
        for said in plan.says:
            screen.print(said, soft_wrap=True, markup=False, highlight=False)
        if confirm.ask(f"download it to {invocation.project.relative(plan.target)}?", screen):
            with progress.bars(screen, of_bytes=True) as advance:
                job.download(plan, advance)
    name = job.local_name(invocation.project, config.model)
    return config if name is None else replace(config, model=name)


def fuse(
    invocation: Invocation, config: FuseConfig, trained: TrainingOutcome, screen: Console, *, as_json: bool
) -> None:
    """Make one model of a run and its base, and show it; as JSON beside the run."""
    from mlxops.jobs.model import fuse as job
    from mlxops.ui.model import fuse as drawing
    from mlxops.ui.terminal import console, progress, tables

    with progress.bars(screen) as advance:
        fused = job.fuse_run(invocation, config, advance)
    if as_json:
        tables.json_out({**trained.to_json(), "fused": fused.to_json()}, console.make())
    else:
        drawing.result(fused, console.make())


def preview(training: Training, *, as_json: bool) -> None:
    """Show what the training would do, and end as it would if it would be refused."""
    from mlxops.jobs.train import session
    from mlxops.ui.terminal import console
    from mlxops.ui.train import outcome

    outlook = session.preview(training)
    outcome.preview(outlook, console.make(), as_json=as_json)
    if outlook.exit_code:
        raise Exit(code=outlook.exit_code)


def work(run: Begun, screen: Console) -> None:
    """Train a run to its target on the screen; a finished one has nothing left to do."""
    from mlxops.jobs.train import detach
    from mlxops.ui.train import live

    if run.is_finished:
        return
    others = detach.settle(run)
    with live.screen(
        screen,
        run_name=run.claim.name,
        target=run.training.prepared.target,
        iteration=run.iteration,
        lines=run.lines,
        curve=run.curve(),
        recent=run.recent(),
        seconds=run.seconds,
    ) as shown:
        run.work(listeners=[shown.show, *others], before_leaving=live.restore)


def verify(training: Training, screen: Console, *, as_json: bool) -> None:
    """Show whether a training of these settings that is killed and resumed ends as one that is not."""
    from mlxops.jobs.train import verify_resume
    from mlxops.ui.terminal import console, progress
    from mlxops.ui.train import outcome

    with progress.bars(screen, plain=True) as advance:
        verdict = verify_resume.verify(training, advance)
    outcome.verified(verdict, console.make(), as_json=as_json)
    verify_resume.check(verdict)


@task
def resume(c: Context, config: ResumeConfig) -> None:
    """Resume a run with the settings that it stored.

    Only where it is, how far it goes and what watches it may change; `lora` starts runs of other settings.
    """
    from mlxops.jobs.train import resume as job

    invocation = house.invocation(c)
    train(invocation, job.settings_of(invocation, config))


@task
def monitor(c: Context, config: MonitorConfig) -> None:
    """Watch runs from any terminal: losses, rates, time left.

    Keys: n and p switch the run, + and - zoom, l is logarithmic, s smooths, o overlays, space pauses, ? helps, q quits.
    """
    from mlxops import times
    from mlxops.jobs.train import monitor as job
    from mlxops.ui.terminal import console, tables
    from mlxops.ui.train import monitor as drawing

    screen = console.make()
    with job.open_watch(house.invocation(c), config) as run:
        if config.json:
            tables.json_out(run.state(), screen)
        elif config.once:
            drawing.once(run, screen, times.now())
        else:
            drawing.live(run, screen, refresh=config.refresh)


@task
def stop(c: Context, config: StopConfig) -> None:
    """Have a running training save and stop; --now kills it.

    It works from any terminal, and the same command then resumes. Ctrl-C leaves the training to end by itself.
    """
    from mlxops.jobs.train import stop
    from mlxops.ui.terminal import console, progress
    from mlxops.ui.train import outcome

    ended = stop.stop(house.invocation(c), config, partial(progress.waiting, console.make(stderr=True)))
    outcome.stopped(ended, console.make(), as_json=config.json)


COLLECTION = "train"
TASKS = (lora, finetune, resume, monitor, stop)
SHORT_NAMES = {"lora": lora, "finetune": finetune, "monitor": monitor, "train-monitor": monitor}
