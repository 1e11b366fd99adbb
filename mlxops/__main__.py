"""The program `mlx-toolkit`: the tasks of `inv` as an installed program, in any folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from invoke import Collection, Program
from invoke.exceptions import Exit, ParseError, UnexpectedExit
from invoke.parser import Argument, Parser
from invoke.util import yaml

from mlxops import __version__
from mlxops.projects import entering, project
from mlxops.tasks import failures, namespace, pages, spelling
from mlxops.tasks.arguments import TaskContext

# What makes environments is done by the newest version here, not by the one in the environment.
_OF_THE_MACHINE = {"install-deps", "project.install-deps", "update", "project.update"}


class Toolkit(Program):
    """Invoke's program over our namespace: it reads the project's `invoke.yaml`, and a wrong request is exit code 2."""

    namespace: Collection

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Take what was typed, in the older toolkit's spelling or ours."""
        typed = sys.argv if argv is None else argv
        self.argv = [typed[0], *spelling.rewrite(typed[1:], self.namespace)]

    def parse_collection(self) -> None:
        """Load the project's settings, which a program with a namespace of its own leaves out."""
        super().parse_collection()
        self.config.set_project_location(project.find(Path.cwd()).root)
        try:
            self.config.load_project()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise Exit(f"invoke.yaml:{line}: not YAML: {error.problem}", code=2) from error

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Parse, then execute. Ends in `SystemExit`, whatever `exit` says, unless all went well."""
        try:
            self.create_config()
            self.parse_core(argv)
            self.parse_collection()
            self.parse_tasks()
            self.parse_cleanup()
            self.update_config()
            self.execute()
            sys.stdout.flush()
        except ParseError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        except Exit as error:
            if error.message:
                print(error.message, file=sys.stderr)
            sys.exit(error.code)
        except UnexpectedExit as error:
            if error.result.hide:
                print(error, file=sys.stderr, end="")
            sys.exit(error.result.exited)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError as error:
            if not failures.reader_has_gone(error):
                raise

    def _make_parser(self) -> Parser:
        tasks = self.collection.task_names.items()
        contexts = [TaskContext(name, aliases, partial(self._arguments, name)) for name, aliases in tasks]
        return Parser(initial=self.initial_context, contexts=contexts)

    def _arguments(self, name: str) -> list[Argument]:
        found: list[Argument] = self.collection[name].get_arguments(
            ignore_unknown_help=self.config.tasks.ignore_unknown_help
        )
        return found

    def print_help(self) -> None:
        """Print the list of tasks: what Invoke's own options are is not what a person asks here."""
        pages.print_tasks(self.namespace)

    def print_task_help(self, name: str) -> None:
        """Print a task's page, as `TASK --help` does."""
        pages.print_task(self.collection[name], name)


program = Toolkit(
    name="mlx-toolkit",
    binary="mlx-toolkit",
    binary_names=["mlx-toolkit", "mlxops"],
    version=__version__,
    namespace=namespace,
)


def main() -> None:
    """Run what was typed, in the project's own environment where it has one with mlxops in it."""
    failures.open_streams()
    try:
        here = Path.cwd()
    except OSError:
        print("the folder you stand in is not there any more\nhint: cd into another one", file=sys.stderr)
        sys.exit(1)
    python = entering.python_of(project.find(here).root)
    if python is not None and not _OF_THE_MACHINE & set(sys.argv[1:2]):
        entering.enter(python, "mlxops")
    program.run()


if __name__ == "__main__":
    main()
