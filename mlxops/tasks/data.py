"""Training data before the training: making it, looking at it, checking it."""

from __future__ import annotations

from invoke import Context
from invoke.exceptions import Exit

from mlxops.config import CheckDataConfig, CreateDataConfig, PreviewDataConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task
def create(c: Context, config: CreateDataConfig) -> None:
    """Create files of training data to start from.

    Writes train.jsonl, valid.jsonl and test.jsonl with rows that all differ, and a README.md that explains each format.
    """
    from mlxops.jobs.data import create as job
    from mlxops.ui.data import create as drawing
    from mlxops.ui.terminal import confirm, console

    plan = job.plan(house.invocation(c), config)
    if (question := job.question(plan)) and not confirm.confirm(question, console.make(stderr=True), yes=config.yes):
        return
    drawing.result(job.create(plan), console.make(), as_json=config.json)


@task
def preview(c: Context, config: PreviewDataConfig) -> None:
    """Show rows exactly as they are trained: text, tokens, masking.

    The code that prepares a training prepares them. What is trained stands in brackets; --json has the tokens.
    """
    from mlxops.jobs.data import preview as job
    from mlxops.ui.data import preview as drawing
    from mlxops.ui.terminal import console, progress

    with progress.bars(console.make(stderr=True)) as advance:
        found = job.preview(house.invocation(c), config, advance)
    drawing.result(found, console.make(), as_json=config.json)


@task
def check(c: Context, config: CheckDataConfig) -> None:
    """Check data for what spoils a training, each by file and line.

    Ends with 2 where training would refuse it, with 1 for warnings under --strict. With --model also tokens, the
    template and the end of turns. --fix writes a copy without the rows that are broken or there twice.
    """
    from mlxops.jobs.data import check as job
    from mlxops.ui.data import check as drawing
    from mlxops.ui.terminal import console, progress

    with progress.bars(console.make(stderr=True)) as advance:
        found = job.check(house.invocation(c), config, advance)
    drawing.result(found, console.make(), as_json=config.json)
    if found.exit_code:
        raise Exit(code=found.exit_code)


COLLECTION = "data"
TASKS = (create, check, preview)
SHORT_NAMES = {"create-training-data": create}
