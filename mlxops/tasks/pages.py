"""The pages of help: the grouped list of the tasks, and one task with its options in the order of its dataclass."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import mlxops
from mlxops.options import Option
from mlxops.tasks.failures import program

if TYPE_CHECKING:
    from invoke import Collection

_VALUES: dict[Any, str] = {int: "N", float: "X", str: "TEXT", list: "A,B"}


def print_tasks(namespace: Collection) -> None:
    """Every task once, by its shortest name and under its collection, with one line each."""
    names = _names_by_task(namespace)
    print(f"mlxops {mlxops.__version__}: fine-tune language models with MLX; every run is a row in runs.db\n")
    print(f"{program()} TASK [--options]\n")
    for title, tasks in _groups(namespace):
        print(title)
        _print_columns((names[task], _first_line(task)) for task in tasks)
        print()
    print(f"{program()} TASK --help explains a task and its options.")


def print_task(task: Any, name: str) -> None:
    """One task: how it is typed, what it does, its options."""
    options: list[Option] = list(getattr(task, "options", ()))  # a task of Invoke's own kind has none of ours
    positionals = [option.name.upper() for option in options if option.required]
    positionals += [f"[{option.name.upper()}]" for option in options if option.positional and not option.required]
    print(" ".join([program(), name, *positionals, "[--options]"]))
    print("\n" + textwrap.indent(inspect.cleandoc(task.__doc__ or ""), "  ") + "\n")
    rows = [(_typed(option), option.full_help) for option in options]
    _print_columns([*rows, ("-h, --help", "show this page and exit")])


def shortest_name(namespace: Collection, task: Any) -> str | None:
    """The name to type for a task, or None where the namespace lacks it."""
    return _names_by_task(namespace).get(task)


def _names_by_task(namespace: Collection) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for name in sorted(namespace.task_names, key=len):
        names.setdefault(namespace[name], name)
    return names


def _groups(namespace: Collection) -> list[tuple[str, list[Any]]]:
    groups = [(name, list(dict.fromkeys(sub.tasks.values()))) for name, sub in namespace.collections.items()]
    grouped = {task for _, tasks in groups for task in tasks}
    alone = [task for task in dict.fromkeys(namespace.tasks.values()) if task not in grouped]
    return [*groups, *([("other", alone)] if alone else [])]


def _first_line(task: Any) -> str:
    return (task.__doc__ or "").strip().split("\n")[0].rstrip(".")


def _typed(option: Option) -> str:
    if option.positional:
        return option.name.upper()
    names = [option.flag, *(f"--{alias}" for alias in option.aliases)]
    if option.kind is bool:
        names[0] = f"--[no-]{option.flag[2:]}" if option.default is True else option.flag
        return ", ".join(names)
    value = (
        "CHOICE" if option.choices else "TEXT" if option.kind is list and not option.commas else _VALUES[option.kind]
    )
    return f"{', '.join(names)} {value}"


def _print_columns(rows: Iterable[tuple[str, str]]) -> None:
    rows = list(rows)
    room = max(60, shutil.get_terminal_size().columns)
    width = min(max(len(left) for left, _ in rows), room // 2)
    for left, right in rows:
        lines = textwrap.wrap(right, room - width - 5) or [""]
        if len(left) > width:
            print(f"  {left}")
            left = ""
        print(f"  {left:<{width}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            print(f"  {'':<{width}}  {line}")
