"""The runs there are, and questions to their registry."""

from __future__ import annotations

from invoke import Context

from mlxops.config import (
    CompareConfig,
    DeleteConfig,
    ExportConfig,
    ImportRunConfig,
    LoraConfig,
    NoteConfig,
    RenameConfig,
    ReportConfig,
    RunConfig,
    RunsConfig,
    SqlConfig,
    TagConfig,
)
from mlxops.errors import BadRequest
from mlxops.tasks import house
from mlxops.tasks.house import task


@task(name="list")
def list_runs(c: Context, config: RunsConfig) -> None:
    """List the runs: status, progress, losses, speed.

    They can be narrowed, sorted and shown with other columns; --json always has all of them.
    """
    from mlxops import times
    from mlxops.jobs.run import listing as job
    from mlxops.ui.run import listing as drawing
    from mlxops.ui.terminal import console, tables

    found = job.runs(house.invocation(c), config, times.now())
    if config.json:
        tables.json_out(found.rows, console.make())
    else:
        drawing.runs(found.rows, console.make(), times.now(), config.columns, is_narrowed=found.is_narrowed)
    if found.cut:
        console.make(stderr=True).print(found.cut)


@task
def show(c: Context, config: RunConfig) -> None:
    """Show one run: settings, attempts, results, how to repeat it."""
    from mlxops import times
    from mlxops.jobs.run import show as job
    from mlxops.ui.run import show as drawing
    from mlxops.ui.terminal import console, tables

    details = job.run(house.invocation(c), config.name)
    if config.json:
        tables.json_out(details, console.make())
    else:
        drawing.run(details, console.make(), times.now())


@task
def compare(c: Context, config: CompareConfig) -> None:
    """Compare two to eight runs: settings, losses, speed, memory.

    Losses stand side by side at equal iterations, trained tokens or time at work (--by).
    """
    from mlxops.jobs.run import compare as job
    from mlxops.ui.run import compare as drawing
    from mlxops.ui.terminal import console, tables

    found = job.compare(house.invocation(c), config)
    if config.json:
        tables.json_out(found, console.make())
    else:
        drawing.comparison(found, console.make())


@task
def tag(c: Context, config: TagConfig) -> None:
    """Show, add or take away the tags of runs."""
    from mlxops.jobs.run import annotate as job
    from mlxops.ui.run import annotate as drawing
    from mlxops.ui.terminal import console, tables

    rows = job.tag(house.invocation(c), config)
    if config.json:
        tables.json_out(rows, console.make())
    else:
        drawing.tags(rows, console.make())


@task
def note(c: Context, config: NoteConfig) -> None:
    """Show or write the note of a run."""
    from mlxops.jobs.run import annotate as job
    from mlxops.ui.run import annotate as drawing
    from mlxops.ui.terminal import console, tables

    row = job.note(house.invocation(c), config)
    if config.json:
        tables.json_out(row, console.make())
    else:
        drawing.note(row, console.make())


@task
def rename(c: Context, config: RenameConfig) -> None:
    """Give a run another name; its folder moves with it.

    A run at work is not renamed. A folder that has not the run's name stays where it is.
    """
    from mlxops.jobs.run import rename as job
    from mlxops.ui.run import annotate as drawing
    from mlxops.ui.terminal import console, tables

    renamed = job.rename(house.invocation(c), config)
    if config.json:
        tables.json_out(renamed, console.make())
    else:
        drawing.renamed(renamed, console.make())


@task
def delete(c: Context, config: DeleteConfig) -> None:
    """Remove runs: their rows and their files.

    It says what would be deleted, and asks. Files that do not belong to the run stay, and so does their folder.
    """
    from mlxops.jobs.run import delete
    from mlxops.ui.run import annotate
    from mlxops.ui.terminal import confirm, console, tables

    invocation, screen = house.invocation(c), console.make(stderr=True)
    planned = delete.plan(invocation, config)
    if not config.yes:
        annotate.to_remove(planned, screen)
    if not confirm.confirm("remove this?", screen, yes=config.yes):
        return screen.print("nothing was removed")
    removed = delete.remove(invocation, planned)
    if config.json:
        return tables.json_out(removed.to_json(), console.make())
    return annotate.removed(removed, console.make())


@task(name="import")
def import_run(c: Context, config: ImportRunConfig) -> None:
    """Import what mlx_lm.lora trained: an adapter folder or a log.

    Nothing is written to it. The same again adds what is new.
    """
    from mlxops.jobs.run.imports import run
    from mlxops.ui.run import imports
    from mlxops.ui.terminal import console, progress

    with progress.bars(console.make(stderr=True), of_bytes=True) as advance:
        defaults = house.settle(c, LoraConfig, {})
        facts = run.import_run(house.invocation(c), config, advance, defaults)
    imports.imported(facts, console.make(), as_json=config.json)


@task
def export(c: Context, config: ExportConfig) -> None:
    """Write points, runs or all as CSV, JSON, JSONL or Parquet."""
    import sys

    from mlxops.jobs.run import export
    from mlxops.ui.run import annotate
    from mlxops.ui.terminal import console, tables

    if sys.__stdout__ is None and config.output is None:
        raise BadRequest("stdout is closed", hint="`--output` names a file")
    files = export.export(house.invocation(c), config, sys.stdout.buffer, is_terminal=sys.stdout.isatty())
    if config.json:
        tables.json_out(files, console.make())
    else:
        annotate.written(files, console.make())


@task
def report(c: Context, config: ReportConfig) -> None:
    """Write a run, or a comparison of several, as one HTML page.

    The page needs no other file and no network: charts, settings, results, how to repeat it. --png writes the loss
    curve as a picture as well. Files of these names are replaced with --yes.
    """
    from mlxops import times
    from mlxops.jobs.run import report
    from mlxops.ui.report import page
    from mlxops.ui.terminal import console, tables

    invocation = house.invocation(c)
    report.check(config)
    found = report.gather(invocation, config)
    drawn = page.draw(found.run, found.comparisons, times.now(), png=config.png is not None)
    files = report.write(invocation, config, found.names, drawn)
    return tables.json_out(files, console.make()) if config.json else page.written(files, console.make())


@task
def sql(c: Context, config: SqlConfig) -> None:
    """Ask the registry in SQL, or with a saved query (@NAME).

    .queries and .schema list what there is. It cannot write. Parameters are :name in the text and --param name=value
    on the command line. In a terminal the answer is a table, in a pipe CSV.
    """
    from mlxops.jobs.run import sql as job
    from mlxops.ui.run import sql as drawing
    from mlxops.ui.terminal import console

    out = console.make()
    form = drawing.format_of(config.format, config.json, out)
    table = job.ask(house.invocation(c), config, limit=drawing.LIMITS.get(form))
    drawing.answer(table.columns, table.rows, out, console.make(stderr=True), format=form, more=table.more)


COLLECTION = "run"
TASKS = (list_runs, show, compare, sql, export, import_run, report, tag, note, rename, delete)
SHORT_NAMES = {"runs": list_runs, "sql": sql}
