"""`.ci/run` types the README's two commands, wherever its scratch folder is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import ROOT

_INSTALL = """#!/bin/sh
printf '%s %s\\n' "$#" "$*" >> typed
printf '%s\\n' "${MLXOPS_TEST_SHELLS:-none}" >> shells
echo finished already
"""


_PROGRAMS = ("awk", "bash", "cat", "chmod", "cp", "dirname", "env", "grep", "mktemp", "mv", "rm", "sh", "tee")
_INSTALLS = """
[ "$1" = update ] || for shell in zsh fish; do cp "${0%/*}/$shell.to-be" "${0%/*}/$shell"; done
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


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

    bin = tmp_path / "programs"
    bin.mkdir()
    for shell in ("zsh", "fish"):
        write_program(bin / f"{shell}.to-be", "")
    write_program(bin / "apt-get", f'echo "$@" >> {shlex.quote(str(tmp_path / "asked"))}; {_INSTALLS}')
    # no other programs than a minimal system has, so that zsh and fish are missing
    for program in _PROGRAMS:
        (bin / program).symlink_to(str(shutil.which(program)))

    ended = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env={**os.environ, "PATH": str(bin), "TMPDIR": str(tmp_path / name)},
        capture_output=True,
        text=True,
    )

    test, *tries = (tmp_path / "typed").read_text().splitlines()
    assert ended.returncode == 0, ended.stderr
    assert test == "1 test"
    assert [tried.startswith(f"5 quickstart --iters 4 --dir {tmp_path / name}/") for tried in tries] == [True, True]
    assert [tried.endswith("/quickstart") for tried in tries] == [True, True]
    assert (tmp_path / "asked").read_text().splitlines() == ["update -qq", "install -y -qq zsh fish"]
    assert set((tmp_path / "shells").read_text().split()) == {"1"}
