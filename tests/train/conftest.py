"""A smaller model for trainings, on which nothing that is tested here depends, and the runs that a monitor watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from empty_registry import open_empty
from history_rows import begin, new_run
from shared_folders import Shared
from tiny_models import made_smaller
from watched_runs import report

from mlxops import registry
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import Registry


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A llama of two layers."""
    return made_smaller(shared)


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    return Invocation(project=Project.at(tmp_path))


@pytest.fixture
def db(invocation: Invocation) -> Iterator[Registry]:
    """Two runs: `heron`, finished at 100 with its best at 50, and the newer `otter`, which has not begun."""
    with open_empty(invocation.project.registry_path) as opened:
        heron = new_run(opened, "heron")
        attempt = begin(opened, heron)
        report(opened, heron.id, attempt, 1, 101)
        for iteration, loss in ((50, 2.0), (100, 2.5)):
            registry.record_validation(opened, heron.id, attempt, iteration=iteration, loss=loss, standard_error=0.1)
        registry.end_attempt(opened, attempt, reason="finished", status="completed", iteration=100)
        new_run(opened, "otter")
        yield opened
