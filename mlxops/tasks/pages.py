"""The pages of help: the grouped list of the tasks, and one task with its options in the order of its dataclass."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mlxops
from mlxops.hints import program
from mlxops.options import Option

if TYPE_CHECKING:
    from invoke import Collection

_VALUES: dict[Any, str] = {int: "N", float: "X", str: "TEXT", list: "A,B", dict: "JSON"}


def print_tasks(namespace: Collection) -> None:
    """Every task once, by its shortest name and under its collection, with one line each."""
    names = _names_by_task(namespace)
    lines = [
        f"mlxops {mlxops.__version__}: fine-tune language models with MLX; every run is a row in runs.db",
        "",
        f"{program()} TASK [--options]",
        "",
    ]
    for title, tasks in _groups(namespace):
        lines += [title, *_columns((names[task], _first_line(task)) for task in tasks), ""]
    lines.append(f"`{program()} TASK --help` explains a task and its options.")
    _page(lines)


def print_task(task: Any, name: str) -> None:
    """One task: how it is typed, two examples where it has them, what it does, its options in groups."""
    options: list[Option] = list(getattr(task, "options", ()))  # a task of Invoke's own kind has none of ours
    shape = getattr(task, "config_class", None)
    positionals = [option.name.upper() for option in options if option.required]
    positionals += [f"[{option.name.upper()}]" for option in options if option.positional and not option.required]
    lines = [" ".join([program(), name, *positionals, "[--options]"]), ""]
    for paragraph in inspect.cleandoc(task.__doc__ or "").split("\n\n"):
        lines += [*textwrap.wrap(paragraph, _room() - 1, initial_indent="  ", subsequent_indent="  "), ""]
    if examples := getattr(shape, "EXAMPLES", ()):
        lines += ["examples", *(f"  {program()} {example}" for example in examples), ""]
    titles = getattr(shape, "GROUPS", {})
    rows = [(_typed(option), option.full_help) for option in options]
    rows.append(("-h, --help", "show this page and exit"))
    width = _width_of(rows)
    for option, row in zip([*options, None], rows, strict=True):
        if option is not None and option.name in titles:
            lines += [*([""] if option is not options[0] else []), titles[option.name]]
        lines += _columns([row], width)
    _page(lines)


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
    names = [option.flag, *map(flag_of, option.aliases)]
    if option.kind is bool:
        names[0] = f"--[no-]{option.flag[2:]}" if option.default is True else option.flag
        return ", ".join(names)
    value = (
        "CHOICE" if option.choices else "TEXT" if option.kind is list and not option.commas else _VALUES[option.kind]
    )
    return f"{', '.join(names)} {value}"


def flag_of(alias: str) -> str:
    """Another name of an option as it is typed: one letter has one dash."""
    return f"-{alias}" if len(alias) == 1 else f"--{alias}"


def _width_of(rows: Sequence[tuple[str, str]]) -> int:
    return min(max(len(left) for left, _ in rows), _room() // 2)


def _columns(rows: Iterable[tuple[str, str]], width: int | None = None) -> list[str]:
    rows = list(rows)
    width, found = width or _width_of(rows), []
    for left, right in rows:
        wrapped = textwrap.wrap(right, _room() - width - 5) or [""]
        if len(left) > width:
            found.append(f"  {left}")
            left = ""
        found.append(f"  {left:<{width}}  {wrapped[0]}".rstrip())
        found += [f"  {'':<{width}}  {line}" for line in wrapped[1:]]
    return found


def _room() -> int:
    return max(60, shutil.get_terminal_size().columns)


def _page(lines: Sequence[str]) -> None:
    """Print, through a pager on a terminal that is too short."""
    text = "\n".join(lines)
    if sys.stdin.isatty() and sys.stdout.isatty() and len(lines) >= shutil.get_terminal_size().lines:
        import pydoc

        # less leaves the page on the screen, and ends by itself where it fits
        os.environ.setdefault("LESS", "-FRX")
        pydoc.pager(text + "\n")
    else:
        print(text)
