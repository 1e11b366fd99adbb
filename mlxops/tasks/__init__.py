"""The namespace: one collection a noun, and the short names of the root.

A project's `tasks.py` takes it with `from mlxops.tasks import namespace` and may add its own tasks to it.
"""

from __future__ import annotations

from invoke import Collection

from mlxops.tasks import checkpoints, model, project, run, train
from mlxops.tasks.help import help_page

namespace = Collection(
    Collection("project", project.quickstart),
    Collection("model", model.list_models, model.import_model),
    Collection("train", train.lora, train.monitor, train.stop, checkpoints.checkpoints, checkpoints.debug_checkpoints),
    Collection(
        "run",
        run.list_runs,
        run.show,
        run.compare,
        run.sql,
        run.export,
        run.import_run,
        run.report,
        run.tag,
        run.note,
        run.delete,
    ),
)
namespace.add_task(help_page, default=True)

# default=False: a task that is its collection's default would else become the root's.
for name, alias in {
    "checkpoints": checkpoints.checkpoints,
    "debug-checkpoints": checkpoints.debug_checkpoints,
    "lora": train.lora,
    "models": model.list_models,
    "monitor": train.monitor,
    "train-monitor": train.monitor,
    "quickstart": project.quickstart,
    "runs": run.list_runs,
    "sql": run.sql,
}.items():
    namespace.add_task(alias, name, default=False)
