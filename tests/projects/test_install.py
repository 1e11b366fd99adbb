"""`install.sh` as a newcomer meets it: in a small checkout whose packages are made here, with the real venv and pip."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_checkouts import UV, shell_or_skip, write_checkout, write_wheels

from mlxops.projects import environment

pytestmark = pytest.mark.slow


class Checkout:
    """A small checkout, and `install.sh` in it."""

    said_first = ""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.python = folder / ".venv" / "bin" / "python"
        self.stamp = folder / ".venv" / ".mlxops.json"
        self.environment = variables

    def start(self, words: str, **more: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [self.folder / "install.sh", *words.split()],
            cwd=self.folder,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, words: str, **more: str) -> tuple[int, str, str]:
        started = self.start(words, **more)
        out, err = started.communicate()
        return started.returncode, out, err

    def hold(self) -> None:
        """Have the next build wait in the middle."""
        os.mkfifo(self.folder / "started")
        os.mkfifo(self.folder / "go")

    def wait_until_held(self) -> int:
        """Wait for that build; the process group that pip is in."""
        group = int((self.folder / "started").read_text())
        (self.folder / "started").unlink()
        return group

    def let_go(self) -> None:
        (self.folder / "go").write_text("")


def told(out: str) -> dict[str, Any]:
    """What the program says of how it was started."""
    return dict(json.loads(out))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout after its first `./install.sh quickstart`, in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("install")
    write_wheels(folder / "wheels")
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(environment.own_python())
    (folder / "bin" / "uv").symlink_to(UV)
    checkout = folder / 'it\'s a "clöne" $x [1]'
    write_checkout(checkout)
    (checkout / ".venv").write_text("")
    variables = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder / "no home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    made = Checkout(checkout, variables)
    code, _, made.said_first = made("quickstart")
    assert code == 0, made.said_first
    shutil.copytree(checkout, folder / "as it was", symlinks=True)
    return made


@pytest.fixture
def install(installed: Checkout) -> Iterator[Checkout]:
    """The installed checkout; whatever a test does to it is undone."""
    yield installed
    restore(installed.folder, installed.folder.parent / "as it was")


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and the time it was last written; for a folder both are 0."""
    found = {str(each.relative_to(folder)): each for each in folder.rglob("*")}
    return {
        name: (0, 0) if each.is_dir() and not each.is_symlink() else (each.lstat().st_size, each.lstat().st_mtime_ns)
        for name, each in found.items()
    }


def beside(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything beside a folder, with size and time; for the folders there too, which tells of files come and gone."""
    others = [each for each in folder.parent.iterdir() if each != folder]
    below = [each for other in others for each in [other, *other.rglob("*")]]
    return {str(each): (each.lstat().st_size, each.lstat().st_mtime_ns) for each in below}


def restore(folder: Path, original: Path) -> None:
    """Make a folder again what the original is, touching only what differs."""
    there, wanted = everything(folder), everything(original)
    for name in sorted(there, reverse=True):
        if there[name] != wanted.get(name):
            (folder / name).rmdir() if there[name] == (0, 0) else (folder / name).unlink()
    for name in sorted(wanted):
        if there.get(name) != wanted[name]:
            if wanted[name] == (0, 0):
                (folder / name).mkdir()
            else:
                shutil.copy2(original / name, folder / name, follow_symlinks=False)


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


# ---------------------------------------------------------------------------------- interrupted, and two at once


def test_a_moved_checkout_is_set_up_anew_and_completed_when_that_was_killed(install: Checkout, tmp_path: Path) -> None:
    shutil.copytree(install.folder, tmp_path / "moved", symlinks=True)
    moved = Checkout(tmp_path / "moved", install.environment)
    first = moved.start("quickstart")
    assert first.stderr is not None
    said = list(itertools.takewhile(lambda line: "making .venv" not in line, first.stderr))
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()

    code, out, err = moved("quickstart")

    assert f".venv is made again: it was made in {install.folder}/.venv\n" in said
    assert ".venv is made again: making it was cut off" in err
    assert (code, told(out)["prefix"]) == (0, str(moved.folder / ".venv"))


def test_a_run_killed_while_it_installs_is_completed(install: Checkout) -> None:
    install.hold()
    first = install.start("test")
    for group in (first.pid, install.wait_until_held()):
        os.killpg(group, signal.SIGKILL)
    first.communicate()

    code, out, err = install("test")

    assert (code, told(out)["arguments"]) == (0, [])
    assert "installing mlxops with dev" in err


def test_a_package_left_half_there_is_not_taken_for_installed(install: Checkout) -> None:
    assert install("test")[0] == 0
    install.stamp.write_text(install.stamp.read_text().replace('"complete"', '"filling"'))
    (record,) = install.folder.glob(".venv/lib/python*/site-packages/pytest-1.dist-info/RECORD")
    record.unlink()

    code, _, err = install("test")

    assert code == 0, err
    assert ".venv is made again: an installation was cut off" in err


def test_ctrl_c_is_one_sentence_and_the_next_run_goes_on(install: Checkout) -> None:
    install.hold()
    first = install.start("test")
    install.wait_until_held()
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate()

    assert (first.returncode, err.splitlines()[-1]) == (
        130,
        "interrupted; the same command completes what is missing",
    )
    assert "Traceback" not in err
    assert install("test")[0] == 0


def test_sigterm_to_the_script_alone_ends_pip_too(install: Checkout) -> None:
    install.hold()
    first = install.start("test")
    install.wait_until_held()
    first.terminate()
    _, err = first.communicate()

    with (install.folder / "build.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # comes when the build has ended
    assert first.returncode == 143
    assert "Traceback" not in err
    assert "waiting" not in install("test")[2]


def test_the_second_of_two_at_once_waits_and_finds_all_done(install: Checkout) -> None:
    install.hold()
    first = install.start("test")
    install.wait_until_held()
    second = install.start("test")
    assert second.stderr is not None
    heard = iter(second.stderr)
    assert any("another installation is at work here; waiting for it" in line for line in heard)
    install.let_go()
    ended = [each.communicate() for each in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    assert "installing" in ended[0][1]
    assert "installing" not in ended[1][1]


def test_a_pip_that_outlives_a_killed_run_is_waited_for(install: Checkout) -> None:
    install.hold()
    first = install.start("test")
    install.wait_until_held()
    os.kill(first.pid, signal.SIGKILL)
    second = install.start("test")
    assert second.stderr is not None
    heard = iter(second.stderr)
    assert any("waiting for it" in line for line in heard)
    install.let_go()

    second.communicate()
    first.communicate()
    assert second.returncode == 0


# ------------------------------------------------------------------------------------ broken, moved, somebody's own


def test_a_file_where_the_environment_should_be_gives_way(installed: Checkout) -> None:
    assert ".venv is not a folder and is replaced\nmaking .venv with" in installed.said_first


def test_an_environment_a_person_made_is_used_and_mended_but_not_removed(install: Checkout) -> None:
    install.stamp.unlink()
    mine = install.folder / ".venv" / "mine"
    mine.write_text("")

    used, again = install("quickstart"), install("quickstart")
    install.python.unlink()
    broken = install("quickstart")

    assert (used[0], again[0], again[2]) == (0, 0, "")
    assert broken[0] == 3
    assert "was not made here and does not serve: its Python does not run" in broken[2]
    assert mine.exists()


def test_a_folder_of_other_things_is_left_alone(install: Checkout) -> None:
    shutil.rmtree(install.folder / ".venv")
    (install.folder / ".venv").mkdir()
    (install.folder / ".venv" / "notes").write_text("mine")

    assert install("quickstart")[0] == 3
    assert (install.folder / ".venv" / "notes").read_text() == "mine"


# ----------------------------------------------------------------------------------- no network, no room, no right


def test_no_network_is_said_in_seconds_and_leaves_what_works(install: Checkout) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/simple"
        tried_once = {"PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
        code, _, err = install("test", PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL=index, **tried_once)

    assert code == 1
    assert "the package index cannot be reached: is there a network?\nhint: with a network" in err
    assert install("quickstart")[2] == ""


def test_a_missing_wheel_is_named_and_so_is_the_command_that_collects_them(install: Checkout, tmp_path: Path) -> None:
    code, _, err = install("test", PIP_FIND_LINKS=str(tmp_path))

    assert code == 1
    assert f"PIP_NO_INDEX is set, and no wheel of pytest that fits is in {tmp_path}" in err.replace(
        '; extra == "dev"', ""
    )
    assert "pip download --dest wheels '.[dev]' hatchling editables" in err


def test_wheels_are_looked_for_from_where_the_person_stands(install: Checkout) -> None:
    shutil.copytree(install.environment["PIP_FIND_LINKS"], install.folder / "wheels")

    assert install("test", PIP_FIND_LINKS="wheels")[0] == 0


def test_a_write_that_fails_is_a_sentence(install: Checkout) -> None:
    limited = ["sh", "-c", 'ulimit -f 0; exec "$0" test', install.folder / "install.sh"]

    ended = subprocess.run(limited, env=install.environment, capture_output=True, text=True)

    assert ended.returncode == 1
    assert "File too large\nhint: ulimit -f unlimited" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/sys takes no files, also from root, on Linux")
def test_a_folder_that_cannot_be_written_is_a_sentence(install: Checkout) -> None:
    shutil.rmtree(install.folder / ".venv")
    (install.folder / ".venv").symlink_to("/sys")

    code, _, err = install("quickstart")

    assert code == 1
    assert "/.venv/.mlxops.lock cannot be written: Permission denied\nhint: clone the repository into" in err


def test_a_broken_build_shows_what_pip_said(install: Checkout) -> None:
    (install.folder / "backend.py").write_text("raise RuntimeError('the backend is out of order')")

    code, _, err = install("test")

    assert code == 1
    assert "RuntimeError: the backend is out of order" in err
    assert "it was not possible to install what is needed" in err
