"""`install.sh` as a newcomer meets it: in a small checkout whose packages are made here, with the real venv and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed_checkouts import Checkout, everything, told
from small_checkouts import shell_or_skip

pytestmark = pytest.mark.slow


def beside(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything beside a folder, with size and time; for the folders there too, which tells of files come and gone."""
    others = [each for each in folder.parent.iterdir() if each != folder]
    below = [each for other in others for each in [other, *other.rglob("*")]]
    return {str(each): (each.lstat().st_size, each.lstat().st_mtime_ns) for each in below}


# ------------------------------------------------------------------------------------------- the second time


def test_a_second_run_changes_nothing_and_says_nothing(install: Checkout) -> None:
    before = everything(install.folder)

    code, out, err = install("quickstart --tiny")

    assert (code, err, told(out)["arguments"]) == (0, "", ["quickstart", "--tiny"])
    assert everything(install.folder) == before


def test_nothing_outside_the_checkout_is_written(install: Checkout) -> None:
    temporary = install.folder.parent / "temporary"
    temporary.mkdir()
    shutil.rmtree(install.folder / ".venv")
    before = beside(install.folder)

    code, _, err = install("test", TMPDIR=str(temporary))

    assert code == 0, err
    assert "making .venv" in err
    assert beside(install.folder) == before


def test_the_tests_add_their_extra_once(install: Checkout) -> None:
    first, again, quickstart = install("test -k word"), install("test -k word"), install("quickstart")

    assert "installing mlxops with dev and what it needs" in first[2]
    assert told(first[1])["arguments"] == ["-k", "word"]
    assert (again[2], quickstart[2]) == ("", "")


def test_changed_requirements_are_installed(install: Checkout) -> None:
    file = install.folder / "pyproject.toml"
    file.write_text(file.read_text() + "\n# changed\n")

    assert "installing mlxops and" in install("quickstart")[2]
    assert install("quickstart")[2] == ""


# ------------------------------------------------------------------------------------- the program in its place


def test_the_program_takes_the_place_of_the_script_and_gives_its_own_exit_code(install: Checkout) -> None:
    started = install.start("quickstart --exit 7")
    out, _ = started.communicate()

    assert (started.returncode, told(out)["pid"]) == (7, started.pid)
    assert told(out)["prefix"] == str(install.folder / ".venv")


def test_it_works_through_a_link_and_from_another_folder(install: Checkout, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(install.folder / "install.sh")

    ended = [
        subprocess.run(
            [tmp_path / "link", *words],
            cwd=tmp_path,
            env=install.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for words in (["quickstart", "--dir", "here"], ["test", "-x"])
    ]

    quickstart, tests = (told(each.stdout) for each in ended)
    assert (quickstart["folder"], quickstart["arguments"]) == (str(tmp_path), ["quickstart", "--dir", "here"])
    assert (tests["folder"], tests["arguments"]) == (str(tmp_path), ["-x", str(install.folder / "tests")])


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
def test_it_runs_under_every_shell_and_without_any_variable(install: Checkout, shell: str) -> None:
    ended = subprocess.run(
        [shell_or_skip(shell), install.folder / "install.sh", "quickstart"], env={}, capture_output=True, text=True
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_person_has_set_for_another_python_breaks_nothing(install: Checkout, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not the json of this Python')")

    code, out, err = install(
        "test",
        PYTHONHOME="/nowhere",
        PYTHONPATH=str(tmp_path),
        PYTHONWARNINGS="error",
        VIRTUAL_ENV="/nowhere",
        PIP_USER="1",
        PIP_TARGET=str(tmp_path / "target"),
        PIP_REQUIRE_VIRTUALENV="1",
        PIP_QUIET="3",
    )

    assert (code, told(out)["prefix"]) == (0, str(install.folder / ".venv")), err
    assert not (tmp_path / "target").exists()


def test_files_are_the_persons_own_under_a_strict_umask(install: Checkout) -> None:
    before = os.umask(0o077)
    try:
        code, _, err = install("test")
    finally:
        os.umask(before)

    assert code == 0, err
    assert install("test")[2] == ""


# --------------------------------------------------------------------------------------- what a person can mistype


def test_help_is_short_and_sets_nothing_up(install: Checkout) -> None:
    shutil.rmtree(install.folder / ".venv")

    answers = [install(words) for words in ("--help", "-h", "quickstart --help")]

    assert [(code, out.splitlines()[0].split("  ")[0], err) for code, out, err in answers] == [
        (0, "usage: ./install.sh [install] [options]", "")
    ] * 3
    assert not (install.folder / ".venv").exists()


def test_an_unknown_verb_names_the_nearest(install: Checkout) -> None:
    assert install("quikstart") == (
        2,
        "",
        "there is no 'quikstart' here; do you mean quickstart?\nhint: `./install.sh --help`\n",
    )


# ---------------------------------------------------------------------------------------------- which Python


def write_program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def write_old_python(path: Path) -> Path:
    """This Python, which takes itself for 3.9; it gets the flags, `-c`, the code and the script's path."""
    says = 'import sys; sys.version_info = (3, 9, 6, "final", 0); code = sys.argv.pop(2); del sys.argv[1]; exec(code)'
    return write_program(path, f'exec \'{sys.executable}\' -ISB -c \'{says}\' "$2" "$3" "$4"')


def test_a_chosen_python_that_is_too_old_is_named(install: Checkout, tmp_path: Path) -> None:
    old = write_old_python(tmp_path / "old")

    code, _, err = install("quickstart", PYTHON=str(old))

    assert code == 2
    assert err.startswith(f"PYTHON={old} will not do: ")
    assert err.endswith("is Python 3.9, and mlxops needs 3.11 or newer\n")


def test_a_chosen_python_that_is_not_there_is_named(install: Checkout) -> None:
    assert install("quickstart", PYTHON="python9") == (
        2,
        "",
        "PYTHON=python9 will not do: there is no Python of that name that runs\n",
    )


def test_pythons_that_are_too_old_or_do_not_run_are_passed_over(install: Checkout, tmp_path: Path) -> None:
    write_old_python(tmp_path / "python3")
    write_program(tmp_path / "python3.14", "echo 'no such version is installed'; exit 127")
    (tmp_path / "python3.13").symlink_to(install.environment["PATH"].split(":")[0] + "/python3")
    (install.folder / ".venv").rename(tmp_path / "away")

    code, _, err = install("--help", PATH=str(tmp_path))

    assert (code, err) == (0, "")


def test_another_path_does_not_mean_another_python(install: Checkout, tmp_path: Path) -> None:
    write_program(tmp_path / "python3", "exit 1")

    code, _, err = install("quickstart", PATH=str(tmp_path))

    assert (code, err) == (0, "")
