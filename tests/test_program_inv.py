"""The same tasks under plain `inv`, in a process of its own and below a project's `tasks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Ended = tuple[int, str, str]
Inv = Callable[..., Ended]

MINE = """
from invoke import task
from mlxops.tasks import namespace

@task
def greet(c, name):
    "Greet somebody."
    print("hello", name)

namespace.add_task(greet)
"""
REUSED = """
from __future__ import annotations
from dataclasses import dataclass
from invoke import Collection
from mlxops.options import option
from mlxops.tasks.house import task

@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    config: str | None = option(None, "a file")
    list: str | None = option(None, "a list")
    debug: bool = option(False, "debug")
    prompt: str | None = option(None, "a prompt", aliases=["p"])

@task
def core(c, config: CoreConfig):
    "Say what was given."
    print(config)

namespace = Collection(core)
"""


def test_bare_it_lists_the_tasks_and_those_of_the_project(inv: Inv) -> None:
    code, out, err = inv("", tasks=MINE)

    assert (code, err) == (0, "")
    assert "\ntrain\n  lora  " in out
    assert "  greet  Greet somebody" in out
    assert out.splitlines()[-1] == "`inv TASK --help` explains a task and its options."


def test_it_works_below_the_folder_of_tasks_py(inv: Inv, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tasks.py").write_text("from mlxops.tasks import namespace\n")
    Path("below").mkdir()
    monkeypatch.chdir("below")

    assert inv("runs --json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        (
            "lora --iters abc",
            2,
            "--iters takes a whole number, not 'abc'\nhint: `inv lora --help` explains its options\n",
        ),
        ("lora --itres 3", 2, "lora has no option --itres\nhint: did you mean `--iters`?\n"),
        pytest.param(
            *("lroa", 2, "there is no task 'lroa'\nhint: did you mean 'lora'?\n"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("run.show", 2, "run.show needs NAME\nhint: `inv run.show --help` explains it\n"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "sql .nope",
            2,
            "'.nope' is not known\nhint: `inv sql .queries` and `inv sql .schema` list what there is\n",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(inv: Inv, command: str, code: int, err: str) -> None:
    assert inv(command) == (code, "", err)


def test_a_missing_positional_does_not_swallow_help(inv: Inv) -> None:
    code, out, err = inv("sql --help")

    assert (code, err) == (0, "")
    assert out.startswith("inv sql TEXT [--options]\n")


def test_tasks_of_invokes_own_kind_work_beside_ours(inv: Inv) -> None:
    assert inv("greet you runs --json", tasks=MINE) == (0, "hello you\n[]\n", "")


@pytest.mark.slow
def test_help_explains_a_task_of_invokes_own_kind_too(inv: Inv) -> None:
    assert inv("help greet", tasks=MINE)[1].splitlines()[2] == "  Greet somebody."


@pytest.mark.slow
def test_a_task_has_its_help_under_each_of_its_names(inv: Inv) -> None:
    assert inv("--help lora")[1].count("--iters") == inv("--help train.lora")[1].count("--iters") == 2


@pytest.mark.slow
def test_names_of_invoke_may_be_reused(inv: Inv) -> None:
    Path("f").write_text("")

    code, out, err = inv("core --config f --list all --debug -p hi", tasks=REUSED)

    assert (code, out, err) == (0, "CoreConfig(config='f', list='all', debug=True, prompt='hi')\n", "")
