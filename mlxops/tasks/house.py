"""The house `@task`: a task whose options are the fields of one dataclass, and whose errors are sentences.

    @task
    def lora(c: Context, config: LoraConfig) -> None: ...

Settings come in layers, the strongest first: the command line; the recipe given with `--config`; the project's
`invoke.yaml`, section `mlxops:`; the dataclass. In `invoke.yaml` a command's settings stand under its name, that of
its dataclass without `Config` (`mlxops: {lora: {iters: 500}, runs: {limit: 20}}`). A setting of a run may also stand
directly under `mlxops:` and then holds for every command that trains; `registry: {path: …}` is where the registry is.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import invoke
from invoke import Context
from invoke.exceptions import Exit, Failure, ParseError
from invoke.parser import Argument

from mlxops import config as configs
from mlxops import files, garbage, hints
from mlxops.errors import BadRequest, Failed, MlxopsError
from mlxops.likeness import nearest
from mlxops.options import Option, options_of, resolve
from mlxops.projects import entering, project
from mlxops.projects.invocation import Invocation
from mlxops.tasks import failures, pages
from mlxops.tasks.arguments import HelpArgument, OptionArgument

Values = Mapping[str, Any]

_background: ContextVar[str] = ContextVar("background", default="")
"""What waits for the start of the task at work."""


def task(*bodies: Callable[..., Any], **options: Any) -> Any:
    """Make a function `(c, config: SomeConfig)` a task; `name` is its name where that is a word of Python."""
    return invoke.task(*bodies, klass=Task, auto_shortflags=False, **options)


def invocation(c: Context) -> Invocation:
    """Where this command works, read from the environment and the project's `invoke.yaml`."""
    registry = _section(c).get("registry") or {}
    found = project.find(
        Path.cwd(), registry=os.environ.get("MLXOPS_DB"), registry_setting=_registry_path(registry, _name_of_file(c))
    )
    cache = os.environ.get("MLXOPS_CACHE")
    background = _background.get()
    return Invocation(
        project=found,
        registry_is_given=bool(os.environ.get("MLXOPS_DB")),
        blas=os.environ.get("MLXOPS_BLAS"),
        cache=files.expanded(cache).absolute() if cache else None,
        api_key=os.environ.get("MLXOPS_API_KEY") or None,
        command=shlex.join([hints.program(), *sys.argv[1:]]),
        background=int(background) if background.isdecimal() else None,
    )


class Task(invoke.Task):
    """Invoke's task with the options of a dataclass; everything else about it is Invoke's."""

    @cached_property
    def config_class(self) -> type:
        """The dataclass of the parameter `config`."""
        found: type = get_type_hints(self.body)["config"]
        return found

    @property
    def options(self) -> tuple[Option, ...]:
        """The options that a person may type."""
        return tuple(option for option in options_of(self.config_class) if option.on_command_line)

    def fill_implicit_positionals(self, positional: Any) -> list[str]:
        """None: the options say which they are."""
        return []

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """One argument an option."""
        flags = {option.flag: option.kind is not bool for option in self.options}
        return [
            HelpArgument(self.print_help),
            *(OptionArgument(option, flags, self.shown_name) for option in self.options),
        ]

    def print_help(self) -> None:
        """Print the page of this task."""
        pages.print_task(self, self.shown_name())

    def shown_name(self) -> str:
        """The shortest name a person can type."""
        from mlxops.tasks import namespace

        return pages.shortest_name(namespace, self) or self.name

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self

    def __call__(self, c: Context, **given: Any) -> Any:
        """Settle the options, run the body, and turn what goes wrong into an exit.

        In tests and scripts `config` may be the finished dataclass: `lora(c, config=LoraConfig(model="m"))`.
        """
        given.pop("help", None)
        failures.open_streams()
        # of this task alone: what it starts, or what comes after it, is not what somebody waits for
        mark = _background.set(os.environ.pop("MLXOPS_BACKGROUND", ""))
        try:
            config = given.get("config")
            self._refuse_dry(c)
            if not isinstance(config, self.config_class):
                typed = {name: value for name, value in given.items() if value is not None}
                config = settle(c, self.config_class, typed)
            with garbage.collect_rarely(garbage.WHILE_STARTING):
                result = self.body(c, config)
            sys.stdout.flush()
        except BaseException as error:
            _leave(error, self)
        finally:
            _background.reset(mark)
        self.times_called += 1
        return result

    def _refuse_dry(self, c: Context) -> None:
        """Invoke's `--dry` keeps its own `c.run` from running, which is nothing that we do: the task would run.

        Raises `BadRequest` wherever it stood on the command line, or in a settings file.
        """
        if not c.config.get("run", {}).get("dry"):
            return
        name = self.shown_name()
        has_preview = any(option.name == "preview" for option in self.options)
        raise BadRequest(
            f"--dry is an option of Invoke that has no effect here: {name} would run",
            hint=f"`inv {name} --preview` shows what would happen" if has_preview else "leave it out",
        )


def settle(c: Context, config_class: type, given: Values) -> Any:
    """The dataclass from all layers; what is said about a recipe goes to stderr."""
    cwd = Path.cwd()
    root = project.find(cwd).root
    names = {option.name for option in options_of(config_class)}
    weaker = [] if given.get("ignore_invoke_yaml") else _layers_of_the_project(c, config_class, root)
    recipe: list[tuple[str, Values]] = []
    if "config" in names:
        below = {name: value for _, layer in weaker for name, value in layer.items()}
        path = given.get("config") or below.get("config")
        if path:
            recipe = [_read_recipe(_find_recipe(path, cwd, root), config_class, root, below=below, above=given)]
    return resolve(config_class, [*weaker, *recipe, ("", given)], usual=len(weaker))


def _layers_of_the_project(c: Context, config_class: type, root: Path) -> list[tuple[str, Values]]:
    section, file = _section(c), _name_of_file(c)
    _check_names(section, file)
    own = section.get(_name_of(config_class)) or {}
    if not isinstance(own, dict):
        raise BadRequest(f"{file}: mlxops.{_name_of(config_class)} takes settings, not {own!r}")
    shared = {
        option.name: section[option.name]
        for option in options_of(config_class)
        if option.role and option.name in section
    }
    return [
        (f"{file}: mlxops", _from_root(shared, config_class, root)),
        (f"{file}: mlxops.{_name_of(config_class)}", _from_root(own, config_class, root)),
    ]


def _check_names(section: Values, file: str) -> None:
    classes: list[Any] = [
        each for name, each in vars(configs).items() if inspect.isclass(each) and name.endswith("Config")
    ]
    known = {"registry", *map(_name_of, classes)}
    known |= {option.name for each in classes for option in options_of(each) if option.role}
    for name in section:
        if name not in known:
            near = nearest(name, known)
            raise BadRequest(
                f"{file}: mlxops: {name!r} is no setting", hint=f"did you mean {near!r}?" if near else None
            )


def _section(c: Context) -> dict[str, Any]:
    section = _plain(c.config.get("mlxops") or {})
    if not isinstance(section, dict):
        raise BadRequest(f"{_name_of_file(c)}: mlxops takes settings, not {section!r}")
    return section


def _registry_path(registry: Any, file: str) -> str | None:
    path = registry.get("path") if isinstance(registry, dict) else registry
    if not isinstance(registry, dict) or set(registry) - {"path"} or not isinstance(path, str | None):
        raise BadRequest(f"{file}: mlxops.registry takes path, a text, not {registry!r}")
    return path


def _plain(value: Any) -> Any:
    """The dict that Invoke's proxy of one stands for."""
    if hasattr(value, "keys"):
        return {name: _plain(value[name]) for name in value}
    return value


def _name_of_file(c: Context) -> str:
    # Invoke keeps the path of the file it has read in a private attribute and nowhere else.
    path = getattr(c.config, "_project_path", None)
    return Path(path).name if path else "invoke.yaml"


def _name_of(config_class: type) -> str:
    words = re.findall(r"[A-Z][a-z0-9]*", config_class.__name__.removesuffix("Config"))
    return "_".join(words).lower()


def _find_recipe(path: str, cwd: Path, root: Path) -> Path:
    typed = files.expanded(path)
    return next((found for found in (cwd / typed, root / typed) if found.exists()), cwd / typed)


def _read_recipe(
    file: Path, config_class: type, root: Path, *, below: Values, above: Values
) -> tuple[str, dict[str, Any]]:
    from mlxops import recipe

    read = recipe.read(file, below=below, above=above)
    for note in read.notes:
        print(f"{file.name}: {note}", file=sys.stderr)
    return file.name, _from_root(read.values, config_class, root)


def _from_root(values: Values, config_class: type, root: Path) -> dict[str, Any]:
    """The values with their paths, which stand in a file, read from the project's root and not the current folder."""
    found = dict(values)
    if root == Path.cwd():
        return found
    for option in options_of(config_class):
        path = found.get(option.name)
        # A model may be a name or an id, and then stays what it is.
        if option.path and isinstance(path, str) and (option.name != "model" or (root / path).exists()):
            found[option.name] = str(root / files.expanded(path))
    return found


# what goes wrong ----------------------------------------------------------------------------------------------------


def _leave(error: BaseException, task: Task) -> NoReturn:
    if isinstance(error, Exception) and (lacking := failures.left_out(error, root := project.find(Path.cwd()).root)):
        # a tasks.py that only imports the namespace runs in the environment of whatever `inv` was started
        python = entering.python_of(root)
        if python is not None:
            entering.enter(python, "mlxops" if hints.program() == "mlx-toolkit" else "invoke")
        raise failures.exit_for(lacking) from error
    if isinstance(error, MlxopsError):
        raise failures.exit_for(error, task.shown_name()) from error
    if isinstance(error, KeyboardInterrupt):
        raise Exit(code=130) from error
    if isinstance(error, (BrokenPipeError, SystemExit)) and failures.reader_has_gone(error):
        raise Exit(code=0) from error
    if reason := failures.output_failed(error):
        raise failures.exit_for(Failed(reason)) from error
    if isinstance(error, (Exit, Failure, ParseError, SystemExit, GeneratorExit)):
        raise error
    if ended := failures.device_failed(error):
        raise failures.exit_for(ended) from error
    raise _exit_for_a_bug(error) from error


def keep_bug(error: BaseException) -> str:
    """Keep the traceback of what nobody foresaw and did not end the task; what a person is told."""
    return str(_exit_for_a_bug(error).message)


def _exit_for_a_bug(error: BaseException) -> Exit:
    cwd = Path.cwd()
    return failures.exit_for_a_bug(error, [project.find(cwd).root, cwd])
