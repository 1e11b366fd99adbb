"""The smaller model of the tests of checkpoints, and a project whose run was killed; other tests have others."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import training_runs
from kept_checkpoints import EVERY_2
from shared_folders import Shared
from tiny_models import made_smaller
from training_runs import RUN, STEP, lora


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A llama of two layers."""
    return made_smaller(shared)


@pytest.fixture(scope="session")
def killed(shared: Shared, tiny_model: Path) -> Path:
    """A project with a run of 13, with a checkpoint every 2 iterations, that was killed in step 12."""
    return shared("killed-every-2", lambda folder: _make_killed(folder / "project", tiny_model)) / "project"


def _make_killed(folder: Path, tiny_model: Path) -> None:
    project = training_runs.make_project(folder, tiny_model)
    ended = lora(project, *RUN, *EVERY_2, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 12))
    assert ended.code == -signal.SIGKILL


@pytest.fixture
def project(tmp_path: Path, killed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, which is the current folder."""
    copy = Path(shutil.copytree(killed, tmp_path / "project", symlinks=True))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def folder(project: Path) -> Path:
    """The run's folder."""
    return project / "adapters" / "run"
