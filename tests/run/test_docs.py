"""Every command of docs/runs.md works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT
from known_runs import folder_of, settings, train

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]


@pytest.mark.slow
def test_every_command_of_the_page_works_in_its_order(mlxops: Typed) -> None:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("inv ") for block in blocks for line in block.splitlines()]
    with registry.open_registry(settings().project.registry_path) as db:
        for name in ("heron", "otter", "wren"):
            folder_of(db, train(db, name, [(10, 3.0), (20, 2.0)], [(20, 2.5, 0.1)]))

    codes = {command: mlxops(command)[0] for command in commands}

    assert len(codes) > 15
    assert {command for command, code in codes.items() if code != 0} == set()
    assert {path.name for path in Path().iterdir()} >= {"points.csv", "runs.jsonl", "dump"}
