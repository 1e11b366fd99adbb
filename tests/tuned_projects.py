"""A project with a tiny model and a run that changed what it says, made once a session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import own_cache, run_here
from shared_folders import Shared
from tiny_models import made_tiny

_ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
    for n in range(12)
]


@pytest.fixture(scope="session")
def _tuned_project(shared: Shared) -> Path:
    tiny = made_tiny(shared)
    return shared("tuned", lambda folder: _train(folder / "project", tiny)) / "project"


def _train(folder: Path, tiny_model: Path) -> None:
    (folder / "data").mkdir(parents=True)
    shutil.copytree(tiny_model, folder / "models" / "tiny")
    (folder / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    for name, rows in (("train", _ROWS), ("valid", _ROWS[:4])):
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = "--iters 8 --save-every 4 --steps-per-eval 4 --num-layers 2 --learning-rate 0.02 --name tuned --samples 0"
    # in this process, which has loaded the libraries already
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLXOPS_DB", str(folder / "runs.db"))
        patch.setenv("HOME", str(folder))
        patch.setenv("MLXOPS_CACHE", str(own_cache(folder.with_name("cache"))))
        assert run_here(f"lora --model tiny {options}", patch) == 0


@pytest.fixture
def tuned_project(_tuned_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, which is the current folder: models/tiny, and the run `tuned` with checkpoints 4 and 8."""
    folder = shutil.copytree(_tuned_project, tmp_path / "project")
    monkeypatch.chdir(folder)
    return Path(folder)
