"""Where `mlx-toolkit` stands: the project's own environment, homes and folders that are not there, closed outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run_python

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]


# the project's environment -------------------------------------------------------------------------------------------


def environment_of_the_project(script: str) -> Path:
    """A project whose environment has mlxops in it, and this script as its Python."""
    Path("tasks.py").write_text("from mlxops.tasks import namespace\n")
    python = Path(".venv/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    Path(".venv/lib/python3.11/site-packages/mlxops-1.0.dist-info").mkdir(parents=True)
    return python


def test_the_projects_own_version_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    environment_of_the_project('printf "%s|" "$@"')
    Path("below").mkdir()
    monkeypatch.chdir("below")

    assert run_python("-m", "mlxops", "runs", "--model", "a b") == (0, "-P|-m|mlxops|runs|--model|a b|", "")


@pytest.mark.slow
def test_it_hands_over_once_only() -> None:
    environment_of_the_project(f'exec "{sys.executable}" "$@"')

    code, out, err = run_python("-m", "mlxops", "--version")

    assert (code, err) == (0, "")
    assert out.startswith("mlx-toolkit ")


@pytest.mark.slow
def test_an_environment_without_mlxops_is_left_alone() -> None:
    environment_of_the_project("exit 9")
    Path(".venv/lib/python3.11/site-packages/mlxops-1.0.dist-info").rmdir()

    assert run_python("-m", "mlxops", "--version")[0] == 0


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import os, sys; os.dup2(int(sys.argv.pop(1)), 1); from mlxops.__main__ import program; program.run()"
    ended = {}
    for command in ("help", "lora --help", "sql .queries"):
        copy = os.dup(writing)
        os.set_inheritable(copy, True)
        ended[command] = inherit(copy, program, command)
    os.close(writing)

    assert ended == dict.fromkeys(ended, (0, ""))


def inherit(descriptor: int, program: str, command: str) -> tuple[int, str]:
    """The exit code and stderr of a program that inherits a descriptor."""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(descriptor), *command.split()],
        pass_fds=[descriptor],
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(descriptor)
    return ended.returncode, ended.stderr


# ------------------------------------------------------------------------------------------- where nobody can stand


@pytest.mark.parametrize("name", ["MLXOPS_DB", "MLXOPS_CACHE"])
def test_a_variable_with_the_home_of_nobody_is_a_wrong_request(
    mlxops: Typed, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "~nouser-here/x")

    code, out, err = mlxops("models")

    assert (code, out, err.splitlines()[0]) == (2, "", "there is no user 'nouser-here'")


def test_a_recipe_in_the_home_of_nobody_is_a_wrong_request(mlxops: Typed) -> None:
    code, _, err = mlxops("lora --config ~nouser-here/recipe.yaml")

    assert (code, err.splitlines()[0]) == (2, "there is no user 'nouser-here'")


def test_a_path_in_the_home_of_nobody_in_the_settings_is_a_wrong_request(
    mlxops: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("invoke.yaml").write_text("mlxops: {data: ~nouser-here/data}")
    Path("below").mkdir()
    monkeypatch.chdir("below")

    code, _, err = mlxops("lora")

    assert (code, err.splitlines()[0]) == (2, "there is no user 'nouser-here'")


def test_a_folder_that_was_removed_is_said() -> None:
    Path("gone").mkdir()
    program = Path(sys.executable).parent / "mlx-toolkit"

    # started by its Python: where the path has a space in it, the program's first line starts a shell, which says more
    ended = subprocess.run(
        ["sh", "-c", 'cd gone && rmdir ../gone && exec "$0" "$1" models', sys.executable, program],
        capture_output=True,
        text=True,
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "the folder you stand in is not there any more\nhint: cd into another one\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("runs --json >&-", 0, ""),
        ("--list >&- 2>&-", 0, ""),
        ("runs --json >/dev/full", 1, "the output cannot be written: No space left on device\n"),
        ("sql 'select 1' >/dev/full", 1, "the output cannot be written: No space left on device\n"),
        ("run.export >&-", 2, "stdout is closed\nhint: `--output` names a file\n"),
    ],
)
def test_an_output_that_takes_nothing_is_no_bug(command: str, code: int, said: str) -> None:
    with registry.open_registry(Path("runs.db")):
        pass
    ended = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m mlxops {command}'], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (code, said)
    assert not list(Path(".mlxops").glob("crash-*"))
