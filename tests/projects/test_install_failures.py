"""`install.sh` where something is in its way: killed, two at once, a broken environment, no network, no right."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from installed_checkouts import Checkout, told

pytestmark = pytest.mark.slow


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
