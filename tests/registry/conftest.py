"""A run at work without a model, the same one undisturbed, and another program with its registry open."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from recorded_trainings import Training, history

from mlxops.events import Event


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    made = Training(tmp_path / "project" / "runs.db")
    yield made
    made.close()


@pytest.fixture
def straight(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The history of the same twelve steps that nothing befell."""

    def train(last: Event | None = None, pace: float = 1.0) -> dict[str, Any]:
        made = Training(tmp_path / "straight" / "runs.db", pace=pace)
        for iteration in range(1, 13):
            made.step(iteration)
        if last is not None:
            made.record(last)
        made.close()
        return history(made.path)

    return train


@pytest.fixture
def other(training: Training, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Another program, which has the registry open; what waits for it does not wait for long."""
    monkeypatch.setattr("mlxops.registry.away._THREAD_PATIENCE", 0.1)
    with closing(sqlite3.connect(training.path, isolation_level=None, timeout=0)) as connection:
        yield connection
