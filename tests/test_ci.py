"""`.ci/run` types the README's two commands, in any scratch folder, and tests with each Python that is here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import ROOT

_INSTALL = """#!/bin/sh
printf '%s %s\\n' "$#" "$*" >> typed
printf '%s\\n' "${MLXOPS_TEST_SHELLS:-none}" >> shells
echo finished already
"""


# An environment's Python, which writes down how it was started; `.ci/environment.py` makes another one like it.
_FIRST = """
case "$1" in
    -c) echo 3.11 ;;
    .ci/environment.py) mkdir -p "$2/bin"; cp "${0%/*}/other" "$2/bin/python"; echo "environment of $3" >> typed ;;
esac
"""
_OTHER = """
printf 'other %s\\n' "$*" >> typed
[ ! -e broken ]
"""

_PROGRAMS = (
    *("awk", "bash", "cat", "chmod", "cp", "dirname", "env", "grep", "mkdir", "mktemp", "mv", "rm", "sh"),
    "tee",
)
_INSTALLS = """
[ "$1" = update ] || for shell in zsh fish; do cp "${0%/*}/$shell.to-be" "${0%/*}/$shell"; done
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@dataclass
class Checkout:
    """A checkout whose Pythons and installers only write down what they are told."""

    folder: Path

    @property
    def pyenv(self) -> Path:
        return self.folder / "pyenv"

    def run(self, scratch: Path) -> subprocess.CompletedProcess[str]:
        ours = {"PATH": str(self.folder / "programs"), "TMPDIR": str(scratch), "PYENV_ROOT": str(self.pyenv)}
        return subprocess.run([self.folder / ".ci" / "run"], env={**os.environ, **ours}, capture_output=True, text=True)

    @property
    def typed(self) -> list[str]:
        return (self.folder / "typed").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    write_program(tmp_path / ".venv" / "bin" / "python", _FIRST)
    write_program(tmp_path / ".venv" / "bin" / "other", _OTHER)
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
    return Checkout(tmp_path)


@pytest.mark.parametrize("name", ["plain", "a $HOME & 'b' \\c"])
def test_the_commands_of_the_readme_are_run_in_any_scratch_folder(name: str, checkout: Checkout) -> None:
    scratch = checkout.folder / name
    scratch.mkdir()

    ended = checkout.run(scratch)

    set_up, test, *tries = checkout.typed
    assert ended.returncode == 0, ended.stderr
    assert (set_up, test) == ("2 test --version", "1 test")
    assert [tried.startswith(f"5 quickstart --iters 4 --dir {scratch}/") for tried in tries] == [True, True]
    assert [tried.endswith("/quickstart") for tried in tries] == [True, True]
    assert (checkout.folder / "asked").read_text().splitlines() == ["update -qq", "install -y -qq zsh fish"]
    assert set((checkout.folder / "shells").read_text().split()) == {"1"}


def test_every_other_python_runs_the_quick_tests_before_the_first_runs_all(checkout: Checkout) -> None:
    (checkout.folder / "scratch").mkdir()
    of_pyenv = checkout.pyenv / "versions" / "3.13.0" / "bin"
    of_pyenv.mkdir(parents=True)
    for program in (checkout.folder / "programs" / "python3.12", of_pyenv / "python"):
        write_program(program, 'echo "$0"')
    write_program(checkout.folder / "programs" / "python3.14", "exit 127")  # as pyenv has it for a version not chosen

    ended = checkout.run(checkout.folder / "scratch")
    typed = checkout.typed
    (checkout.folder / "typed").unlink()
    (checkout.folder / "broken").touch()
    failed = checkout.run(checkout.folder / "scratch")

    assert ended.returncode == 0, ended.stderr
    assert typed[:6] == [
        "2 test --version",
        f"environment of {checkout.folder}/programs/python3.12",
        "other -m pytest -m not slow",
        f"environment of {of_pyenv}/python",
        "other -m pytest -m not slow",
        "1 test",
    ]
    assert failed.returncode == 1
    assert checkout.typed[-1] == "other -m pytest -m not slow"
