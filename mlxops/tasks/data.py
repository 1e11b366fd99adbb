"""Training data before the training: making it, looking at it, checking it."""

from __future__ import annotations

from invoke import Context

from mlxops.config import CreateDataConfig
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


COLLECTION = "data"
TASKS = (create,)
SHORT_NAMES = {"create-training-data": create}
