"""This repository's tasks: the toolkit's own, and those for working on it."""

from __future__ import annotations

import sys

from invoke import Collection, Context, task

from mlxops.tasks import namespace

__all__ = ["namespace"]


@task
def check(c: Context) -> None:
    """Check the code as `.ci/run` does: ruff, mypy, pytest."""
    python = f"'{sys.executable}' -m"
    for command in ("ruff check .", "ruff format --check .", "mypy", "pytest"):
        c.run(f"{python} {command}", pty=sys.stdout.isatty())


@task
def docs(c: Context) -> None:
    """Write docs/sql.md and db/datasette.yaml again, from db/ and the small registry of the tests."""
    for script in ("docs/sql.py", "docs/datasette_yaml.py"):
        c.run(f"'{sys.executable}' {script}", pty=sys.stdout.isatty())


namespace.add_collection(Collection("dev", check, docs))
