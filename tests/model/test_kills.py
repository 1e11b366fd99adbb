"""Killed at any instant, what makes a model leaves nothing half-made, and the next start completes it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, run_python
from hub import hub

pytestmark = pytest.mark.slow

KILLS = 20


def killed(
    project: Path, folder: str, command: str, kills: int = KILLS, environment: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """What came of a command that was killed at instants of its work, having checked that each was completed."""
    home = project.with_name("kills")
    home.mkdir()
    copy = shutil.copytree(project, home / "project")
    script = str(ROOT / "tests" / "instants.py")
    code, out, err = run_python(script, str(copy), folder, str(kills), *shlex.split(command), environment=environment)
    assert code == 0, err
    first, *rest = json.loads(out.splitlines()[-1])
    assert (first["code"], first["state"] is not None, first["instants"] > kills) == (0, True, True)
    assert [each["killed"] for each in rest] == [-9] * kills
    assert [each for each in rest if each["is_half"]] == []
    assert [each for each in rest if each["code"] or not each["is_whole"] or each["left"]] == []
    return list(rest)


def test_a_fuse_that_is_killed_is_completed(tuned_project: Path) -> None:
    rest = killed(tuned_project, "models/tuned-fused", "model.fuse tuned")

    assert {each["evaluations"] for each in rest} == {2}


def test_a_fuse_that_replaces_another_model_is_completed(tuned_project: Path, mlxops: Any) -> None:
    assert mlxops("model.fuse tuned:4 --output models/mine")[0] == 0

    rest = killed(tuned_project, "models/mine", "model.fuse tuned --output models/mine --yes", kills=6)

    assert {each["evaluations"] for each in rest} == {4}


def test_a_conversion_that_is_killed_is_completed(tuned_project: Path) -> None:
    killed(tuned_project, "models/tiny-4bit", "model.convert tiny --quantize 4")


def test_a_download_that_is_killed_is_completed(tuned_project: Path, tiny_model: Path) -> None:
    with hub() as there:
        there.add("me/other", tiny_model)
        killed(tuned_project, "models/other", "download-model me/other", environment=there.environment)
