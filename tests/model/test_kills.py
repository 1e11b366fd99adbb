"""Killed at any instant, what makes a model leaves nothing half-made, and the next start completes it."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import instants
import pytest
from forked_server import forks
from hub import hub

pytestmark = pytest.mark.slow

KILLS = 20


def killed(
    project: Path, folder: str, command: str, kills: int = KILLS, environment: Mapping[str, str] | None = None
) -> set[int | None]:
    """The comparisons recorded by a command that was killed at instants of its work, having checked what came of it."""
    home = project.with_name("kills")
    home.mkdir()
    copy = shutil.copytree(project, home / "project")
    answer, given = multiprocessing.Pipe(duplex=False)
    arguments = (copy, folder, kills, shlex.split(command), {**os.environ, **(environment or {})}, given)
    process = forks().Process(target=instants.survive, args=arguments)
    process.start()
    given.close()
    found: instants.Survived = answer.recv()
    process.join()
    assert (found.code, found.is_made, found.instants > kills) == (0, True, True)
    assert found.signals == (signal.SIGKILL,) * kills
    assert not any(found.half)
    assert [each for each in found.completed if each.code or not each.is_whole or each.left] == []
    return {each.evaluations for each in found.completed}


def test_a_fuse_that_is_killed_is_completed(tuned_project: Path) -> None:
    assert killed(tuned_project, "models/tuned-fused", "model.fuse tuned") == {2}


def test_a_fuse_that_replaces_another_model_is_completed(tuned_project: Path, mlxops: Any) -> None:
    assert mlxops("model.fuse tuned:4 --output models/mine")[0] == 0

    assert killed(tuned_project, "models/mine", "model.fuse tuned --output models/mine --yes", kills=6) == {4}


def test_a_conversion_that_is_killed_is_completed(tuned_project: Path) -> None:
    killed(tuned_project, "models/tiny-4bit", "model.convert tiny --quantize 4")


def test_a_download_that_is_killed_is_completed(tuned_project: Path, tiny_model: Path) -> None:
    with hub() as there:
        there.add("me/other", tiny_model)
        killed(tuned_project, "models/other", "download-model me/other", environment=there.environment)
