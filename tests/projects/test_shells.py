"""The line for a profile, and which file it goes into."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlxops.errors import BadRequest
from mlxops.projects import shells
from mlxops.projects.diagnosis import path_line


def test_the_line_reads_a_script_in_any_folder_and_nothing_where_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder" of $HOME'
    folder.mkdir()
    line = shells.line("bash", folder)

    gone = subprocess.run(["sh", "-c", f"{line}; echo end"], capture_output=True, text=True)
    (folder / "bash").write_text("echo read")
    read = subprocess.run(["sh", "-c", f"{line}; echo end"], capture_output=True, text=True)

    assert (gone.stdout, gone.stderr, read.stdout) == ("end\n", "", "read\nend\n")


@pytest.mark.parametrize(
    ("there", "chosen"),
    [([], ".bash_profile"), ([".profile"], ".profile"), ([".profile", ".bash_profile"], ".bash_profile")],
)
def test_on_a_mac_no_profile_of_a_login_shell_is_hidden(
    there: list[str], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxops.system.ON_MACOS", True)
    for name in there:
        (tmp_path / name).write_text("")

    assert shells.profile("bash", tmp_path) == tmp_path / chosen


def test_a_profile_is_where_the_shell_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlxops.system.ON_MACOS", False)
    monkeypatch.setenv("ZDOTDIR", str(tmp_path / "zsh"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))

    assert [shells.profile(shell, tmp_path).relative_to(tmp_path).as_posix() for shell in shells.SHELLS] == [
        ".bashrc",
        "zsh/.zshrc",
        "settings/fish/config.fish",
    ]


def test_another_shell_is_named_with_those_that_have_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert shells.of_person() == "fish"
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    with pytest.raises(BadRequest, match="bash, zsh and fish, and SHELL is '/bin/tcsh'"):
        shells.of_person()


def test_the_line_for_path_goes_where_a_shell_of_this_system_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}
    for is_mac in (False, True):
        monkeypatch.setattr("mlxops.system.ON_MACOS", is_mac)
        said[is_mac] = [path_line(shell, "/b").split(":")[0] for shell in ("bash", "zsh")]

    assert said == {
        False: ["add to ~/.bashrc", "add to ~/.zshrc"],
        True: ["add to ~/.bash_profile", "add to ~/.zshrc"],
    }
