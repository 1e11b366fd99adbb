"""The runs there are, and questions to their registry."""

from __future__ import annotations

from invoke import Context

from mlxops.config import RunConfig, RunsConfig, SqlConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task(name="list")
def list_runs(c: Context, config: RunsConfig) -> None:
    """List the runs: status, progress, losses, speed."""
    from mlxops.jobs import history
    from mlxops.ui import console, show

    rows, more = history.runs(house.settings(c), config)
    if config.json:
        show.json_out(rows, console.make())
    else:
        show.runs(rows, console.make(), history.now())
    if more:
        console.make(stderr=True).print(f"these are the newest {config.limit}: --limit shows more")


@task
def show(c: Context, config: RunConfig) -> None:
    """Show one run in full: settings, attempts, checkpoints, events."""
    from mlxops.jobs import history
    from mlxops.ui import console, show

    details = history.run(house.settings(c), config.name)
    if config.json:
        show.json_out(details, console.make())
    else:
        show.run(details, console.make(), history.now())


@task
def sql(c: Context, config: SqlConfig) -> None:
    """Ask the registry in SQL, or with a saved query (@NAME).

    .queries and .schema list what there is. It cannot write. Parameters are :name in the text and --param name=value
    on the command line.
    """
    from mlxops.jobs import history
    from mlxops.ui import console, show

    table = history.ask(house.settings(c), config)
    show.table(table.columns, table.rows, console.make(), format="json" if config.json else config.format)
