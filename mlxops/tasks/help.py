"""The task behind bare `inv`: the list of tasks, or one of them explained."""

from __future__ import annotations

from invoke import Context

from mlxops.config import HelpConfig
from mlxops.errors import NotFound
from mlxops.likeness import nearest
from mlxops.tasks.house import task


@task(name="help")
def help_page(c: Context, config: HelpConfig) -> None:
    """List the tasks, or explain one: inv help TASK."""
    from mlxops.tasks import namespace, pages

    if not config.task:
        return pages.print_tasks(namespace)
    if config.task not in namespace:
        near = nearest(config.task, namespace.task_names)
        hint = f"did you mean {near!r}?" if near else "`inv help` lists the tasks"
        raise NotFound(f"there is no task {config.task!r}", hint=hint)
    return pages.print_task(namespace[config.task], config.task)
