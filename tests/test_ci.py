"""`.ci/run` types the README's two commands, wherever its scratch folder is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import ROOT

_INSTALL = """#!/bin/sh
printf '%s %s\\n' "$#" "$*" >> typed
echo finished already
"""


@pytest.mark.parametrize("name", ["plain", "a $HOME & 'b' \\c"])
def test_the_commands_of_the_readme_are_run_in_any_scratch_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/true")
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "install.sh").write_text(_INSTALL)
    (tmp_path / "install.sh").chmod(0o755)

    ended = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env={**os.environ, "TMPDIR": str(tmp_path / name)},
        capture_output=True,
        text=True,
    )

    test, *tries = (tmp_path / "typed").read_text().splitlines()
    assert ended.returncode == 0, ended.stderr
    assert test == "1 test"
    assert [tried.startswith(f"5 quickstart --iters 4 --dir {tmp_path / name}/") for tried in tries] == [True, True]
    assert [tried.endswith("/quickstart") for tried in tries] == [True, True]
