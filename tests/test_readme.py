"""The README's commands do what it says. The two that set everything up are run by `.ci/run`; the others here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def commands() -> list[str]:
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = "".join(blocks).replace("&&\n", "\n").splitlines()
    return [line.strip().removeprefix(".venv/bin/") for line in lines]


def words(command: str) -> str:
    return command.split()[0]


@pytest.mark.slow
def test_every_command_of_the_readme_does_its_work(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    shutil.copytree(tiny_model, tmp_path / "models" / "SmolLM2-135M-Instruct")
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    set_up = [command for command in commands() if words(command) == "./install.sh"]
    tried = [command for command in commands() if command not in set_up]

    ended = {
        command: subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        for command in tried
    }

    assert len(set_up) == 2
    assert len(tried) > 10
    assert {command: (each.returncode, each.stderr[-2000:]) for command, each in ended.items() if each.returncode} == {}
