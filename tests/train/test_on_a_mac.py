"""A day on the emulated Mac: a first run, one that is killed and resumed, watching, stopping, two spellings."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import forked_server
import mac
import pytest
import training_runs
from commands import Ended
from training_runs import RUN, STEP, Command, lora

from mlxops import registry

pytestmark = pytest.mark.slow

Toolkit = Callable[..., Ended]


def killed_on(the_mac: mac.Mac, step: int) -> None:
    """Have this process be one on the Mac, and be killed before a step."""
    mac.emulate(the_mac)
    training_runs.signal_itself(signal.SIGKILL, STEP, step)


def tell_parent(file: Path) -> None:
    """Have this process say which one started it."""
    file.write_text(str(os.getppid()))


@pytest.fixture(scope="module")
def the_mac(tmp_path_factory: pytest.TempPathFactory) -> mac.Mac:
    """One Mac for a run and those who look at it: its boot is the same."""
    return mac.Mac.make(tmp_path_factory.mktemp("mac") / "mac")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, the_mac: mac.Mac) -> Path:
    """A project with a run that was killed at step 8 and resumed, after another name, and with the clock set."""
    project = training_runs.make_project(tmp_path_factory.mktemp("trained") / "project", tiny_model)
    killed = lora(project, *RUN, first=partial(killed_on, the_mac, 8))
    the_mac.say("host", "ibis.fritz.box")
    the_mac.say("announced", "heron")
    the_mac.say("clock", "-3600")
    resumed = lora(project, *RUN, first=partial(mac.emulate, the_mac))
    assert (killed.code, resumed.code) == (-signal.SIGKILL, 0), resumed.said
    return project


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    copied = Path(shutil.copytree(trained, tmp_path / "project", symlinks=True))
    monkeypatch.chdir(copied)
    return copied


def test_a_run_that_is_killed_resumes_bit_for_bit(trained: Path, tmp_path: Path, tiny_model: Path) -> None:
    other = mac.Mac.make(tmp_path / "mac")
    straight = training_runs.make_project(tmp_path / "straight", tiny_model)
    assert lora(straight, *RUN, first=partial(mac.emulate, other)).code == 0
    first, second = training_runs.attempts(trained, "run")

    training_runs.assert_exact(trained, training_runs.result(straight, "run"))
    assert (first["end_reason"], first["host"], first["boot_id"]) == ("lost", "ibis.local", mac.BOOT)
    assert (second["start_kind"], second["host"], second["from_iteration"]) == ("exact", "heron.local", 5)
    assert second["environment"]["macos_build"] == "24B83"
    assert second["environment"]["blas"] == "accelerate"


def test_it_was_kept_awake_while_it_trained(trained: Path, the_mac: mac.Mac) -> None:
    pids = [str(each["pid"]) for each in training_runs.attempts(trained, "run")]

    assert (the_mac.folder / "caffeinated").read_text().splitlines() == [f"-i -w {pid}" for pid in pids]


def test_another_build_of_macos_is_named(project: Path, tmp_path: Path) -> None:
    updated = mac.Mac.make(tmp_path / "mac")
    updated.answer("kern.osversion", "24C101")

    ended = lora(project, *RUN, "--iters", "14", first=partial(mac.emulate, updated))

    assert ended.code == 0
    assert "the result can differ from an uninterrupted run's: macos_build: 24B83 → 24C101" in ended.said
    assert training_runs.attempts(project, "run")[-1]["start_kind"] == "inexact"


def test_it_is_watched_verified_and_asked(project: Path, a_mac: mac.Mac, mlxops: Toolkit) -> None:
    said = {
        command: mlxops(command)
        for command in ("monitor --once", "checkpoints --verify", "runs", "status", "run.show run")
    }
    answer = mlxops("sql 'select name, status, iteration from run_summary' --json")

    assert [(command, code, err) for command, (code, _, err) in said.items() if code or err] == []
    assert json.loads(answer[1]) == [{"name": "run", "status": "completed", "iteration": 13}]
    assert "6 whole; " in said["checkpoints --verify"][1]
    assert "Apple M3 Max" in said["status"][1]
    assert "6.0 GB of 68.7 GB, 37 % busy" in said["status"][1]


def test_one_that_trains_is_stopped_after_another_network(
    a_mac: mac.Mac, tmp_path: Path, tiny_model: Path, mlxops: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = training_runs.make_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(project)
    options = ("--model", "tiny", "--name", "long", "--iters", "100000", "--num-layers", "1", "--save-every", "100000")
    command = Command(project, options, first=partial(mac.emulate, a_mac))
    command.wait_for_training()
    a_mac.say("host", "dhcp-17.example.org")
    (a_mac.folder / "announced").unlink()
    a_mac.say("clock", "7200")
    mac.forget()

    seen = mlxops("monitor --once")
    code, out, _ = mlxops("train.stop long --json")
    if code:  # nothing else ends it
        command.kill()
    ended = command.wait()

    assert (code, json.loads(out)["state"], ended.code) == (0, "stopped", 143)
    assert seen[0] == 0
    assert [each["end_reason"] for each in training_runs.attempts(project, "long")] == ["SIGTERM"]


def test_a_reader_that_leaves_ends_a_list_quietly(project: Path, a_mac: mac.Mac) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-m", "mlxops", "runs", "--json"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_another_spelling_of_a_name_costs_no_checkpoint(project: Path, a_mac: mac.Mac, mlxops: Toolkit) -> None:
    before = training_runs.contents(project / "adapters" / "run")

    with mac.one_folder(project / "adapters" / "run", project / "adapters" / "RUN"):
        answers = [mlxops(f"lora --model tiny --iters 2 --learning-rate 0.5 {named}") for named in _SPELLINGS]
    with registry.open_read_only(project / "runs.db") as db:
        names = [run["name"] for run in registry.candidate_runs(db)]

    assert [code for code, _, _ in answers] == [3, 3, 3]
    assert all("the run 'run'" in err for _, _, err in answers)
    assert training_runs.contents(project / "adapters" / "run") == before
    assert names == ["run"]


_SPELLINGS = ("--name RUN", "--adapter-path adapters/RUN", "--name RUN --new")


def test_the_first_thing_that_is_tried_works(a_mac: mac.Mac, mlxops: Toolkit) -> None:
    code, out, err = mlxops("quickstart --tiny --dir first --iters 4")

    assert (code, "bug" in err) == (0, False)
    assert "first" in out


def test_where_a_fork_is_not_safe_a_command_is_a_new_process(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_runs, "forks", partial(forked_server.forks, False))
    project = training_runs.make_project(tmp_path / "project", tiny_model)

    ended = lora(project, *RUN, first=partial(tell_parent, tmp_path / "parent"))

    assert (ended.code, training_runs.newest_checkpoint(project, "run")) == (0, 13), ended.said
    assert int((tmp_path / "parent").read_text()) == os.getpid()  # and no server's, which forks


def test_on_a_mac_a_fork_is_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    place = importlib.util.spec_from_file_location("forked_server_of_a_mac", forked_server.__file__)
    assert place is not None
    assert place.loader is not None
    of_a_mac = importlib.util.module_from_spec(place)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, place.name, of_a_mac)
        patch.setattr(sys, "platform", "darwin")
        place.loader.exec_module(of_a_mac)

    assert of_a_mac.forks().get_start_method() == "spawn"


def test_a_project_that_icloud_syncs_is_told_once(
    tiny_model: Path, a_mac: mac.Mac, mlxops: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ["HOME"])
    (home / "Library" / "Mobile Documents" / "com~apple~CloudDocs" / "Documents").mkdir(parents=True)
    project = training_runs.make_project(home / "Documents" / "project", tiny_model)
    monkeypatch.chdir(project)

    said = [mlxops(" ".join(["lora", *RUN, "--iters", iterations])) for iterations in ("1", "2")]

    assert [code for code, _, _ in said] == [0, 0], said
    assert ["iCloud syncs" in err for _, _, err in said] == [True, False]
