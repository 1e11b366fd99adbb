"""The registry that the tests of runs write to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from empty_registry import open_empty
from known_runs import settings

from mlxops.registry import Registry


@pytest.fixture
def db() -> Iterator[Registry]:
    """The registry of the current folder, open; a module of tests may have another."""
    with open_empty(settings().project.registry_path) as opened:
        yield opened
