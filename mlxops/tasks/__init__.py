"""The namespace: one collection a noun, and the short names of the root. Each module of tasks declares its own.

A project's `tasks.py` takes it with `from mlxops.tasks import namespace` and may add its own tasks to it.
"""

from __future__ import annotations

import sys

from invoke import Collection

from mlxops.tasks import checkpoints, data, eval, model, project, run, train
from mlxops.tasks.help import help_page

namespace = Collection()
for module in (project, model, data, train, checkpoints, eval, run):
    if module.COLLECTION not in namespace.collections:
        namespace.add_collection(Collection(module.COLLECTION))
    for task in module.TASKS:
        namespace.collections[module.COLLECTION].add_task(task)
    for name, task in module.SHORT_NAMES.items():
        # default=False: a task that is its collection's default would else become the root's
        namespace.add_task(task, name, default=False)
namespace.add_task(help_page, default=True)

if "--complete" in sys.argv[1:2]:
    # a shell asks, through whichever program: Invoke's own knows no values
    from mlxops.tasks import completion

    completion.answer(sys.argv, namespace)
