"""`doctor --self-test` tries out what a machine must do, says what helps where it fails, and leaves nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mac
import psutil
import pytest

from mlxops.errors import Failed, Interrupted
from mlxops.jobs.project import laboratory as laboratories
from mlxops.jobs.project import self_test
from mlxops.jobs.project.laboratory import CommandResult, Laboratory, Unexpected, laboratory
from mlxops.projects import environment, packages
from mlxops.projects.diagnosis import Finding
from mlxops.projects.facts import ComputeFacts, EnvironmentFacts
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

AROUND = EnvironmentFacts(folder=".venv", is_own=True, python="3.13.1", versions={"mlx": "0.32.4"}, backends=("metal",))
RUN = {"iteration": 4, "status": "completed"}
LOSS = {"validation_loss": 5.5}
PART = {"part": "adapter", "equal": False, "largest_relative_difference": 1e-6}
DIFFERS = {"iterations": 8, "interrupted_after": 4, "device": "gpu", "equal": False, "parts": [PART]}


def here() -> Invocation:
    return Invocation(project=Project.at(Path.cwd()), cache=Path(os.environ["MLXOPS_CACHE"]))


def ended(code: int = 0, out: str = "", err: str = "") -> CommandResult:
    return CommandResult(command="mlx-toolkit x", code=code, out=out, err=err)


def stand_in(name: str, script: str) -> Path:
    """A program that stands in for the Python of the laboratory."""
    program = Path(os.environ["HOME"]) / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


# the real thing -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_of_it_works_here_and_nothing_is_left(
    mlxops, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # commands that load a model are forked; what they start, what has no reader and what is evaluated is not
    forked = f'case $4 in quickstart | lora | checkpoints) exec {shlex.quote(str(programs / "python"))} "$@" ;; esac'
    python = stand_in("python", f'{forked}\nexec {shlex.quote(sys.executable)} "$@"')
    monkeypatch.setattr(self_test.sys, "executable", str(python))
    # what a person has set is none of its business
    monkeypatch.setenv("MLXOPS_DB", str(tmp_path / "runs.db"))
    Path("invoke.yaml").write_text("mlxops: {iters: 1000000, quickstart: {dir: elsewhere}}\n")
    Path(os.environ["HOME"], ".invoke.yaml").write_text("mlxops: {iters: 1000000}\n")

    code, out, err = mlxops("doctor --self-test --json")

    found = json.loads(out)
    assert [(each["check"], each["level"], each["said"]) for each in found["findings"] if each["level"] != "ok"] == []
    assert [each["check"] for each in found["findings"]] == list(self_test._CHECKS)
    assert (code, len(found["findings"]), err.splitlines()[-1]) == (0, 10, "folder (10 of 10)")
    assert found["about"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [each.name for each in Path.cwd().iterdir()] == ["invoke.yaml"]
    assert not (tmp_path / "runs.db").exists()


# what is found where something does not work -------------------------------------------------------------------------


def verdicts() -> dict[str, tuple[Finding, str, str]]:
    """A finding of each kind of failure, its level, and words of what is said or of what helps."""
    computes, wrong = ComputeFacts(device="gpu", flops=1e12), ComputeFacts(device="gpu", is_right=False)
    on_processor = ComputeFacts(device="cpu", blas="accelerate", flops=1e12)
    stopped = {"state": "stopped", "iteration": 9, "goes_on_from": 9}
    return {
        "computes": (self_test.judge_device(computes, AROUND, "Apple M3"), "ok", "on the gpu of Apple M3"),
        "wrong": (self_test.judge_device(wrong, AROUND, "Apple M3"), "broken", "has a wrong result"),
        "no Metal": (
            self_test.judge_device(on_processor, AROUND, "Apple M3"),
            "warning",
            "a virtual machine may have no",
        ),
        "trained": (self_test.judge_training(trained()), "ok", "from 5.500 to 5.500"),
        "not finished": (self_test.judge_training(trained(run={**RUN, "status": "failed"})), "broken", "`inv doctor`"),
        "not a number": (self_test.judge_training(trained(after={"validation_loss": None})), "broken", "[5.5, None]"),
        "speechless": (self_test.judge_training(trained(answers=[])), "broken", "0 answers"),
        "exact": (self_test.judge_resume({**DIFFERS, "equal": True}), "ok", "bit for bit"),
        "inexact": (self_test.judge_resume({**DIFFERS, "repeats_without_a_stop": True}), "broken", "please report it"),
        "unsteady": (
            self_test.judge_resume({**DIFFERS, "repeats_without_a_stop": False}),
            "warning",
            "1e-06 (relative)",
        ),
        "stopped": (self_test.judge_stop(42, ended(out=json.dumps(stopped))), "ok", "stopped at iteration 9"),
        "ran on": (
            self_test.judge_stop(42, ended(3, err="nothing proves it\nhint: x")),
            "broken",
            "kill -TERM 42",
        ),
        "lost work": (
            self_test.judge_stop(42, ended(out=json.dumps({**stopped, "goes_on_from": 0}))),
            "broken",
            "resumes from 0",
        ),
        "unread": (self_test.judge_reader([ended(), ended()]), "ok", "2 commands ended well"),
        "a bug": (
            self_test.judge_reader([ended(), ended(1, err="this is a bug: BrokenPipeError")]),
            "broken",
            "BrokenPipe",
        ),
        "two runs": (self_test.judge_names(True, ended(), ended()), "ok", "is a run of its own"),
        "refused": (self_test.judge_names(True, ended(3), ended()), "ok", "was refused"),
        "overwritten": (self_test.judge_names(False, ended(), ended()), "broken", "give runs names of other letters"),
        "damaged": (self_test.judge_names(True, ended(), ended(1)), "broken", "changed the checkpoints of another one"),
        "booted": (self_test.judge_boot({"boot": "b", "process": "p", "host": "h"}), "ok", "/usr/bin:/bin"),
        "no boot": (
            self_test.judge_boot({"boot": None, "process": "p", "host": "h"}),
            "broken",
            "PATH=/usr/bin:/bin: boot",
        ),
        "known": (
            self_test.judge_network({"names": ["a", "b"], "alive": [True, True]}),
            "ok",
            "under another name, too",
        ),
        "unknown": (self_test.judge_network({"names": ["a", "b"], "alive": [True, False]}), "broken", "called b"),
    }


def trained(**changes: Any) -> Mapping[str, Any]:
    return {"run": RUN, "before": LOSS, "after": LOSS, "answers": ["one"], **changes}


def test_each_failure_has_its_level_and_says_what_helps() -> None:
    found = verdicts()
    said = {name: f"{each.said} {each.cure}" for name, (each, _, _) in found.items()}

    assert {name: each.level for name, (each, _, _) in found.items()} == {
        name: level for name, (_, level, _) in found.items()
    }
    assert [said[name] for name, (_, _, expected) in found.items() if expected not in said[name]] == []
    assert [name for name, (each, level, _) in found.items() if level != "ok" and not each.cure] == []


def test_a_check_whose_command_fails_is_broken_and_the_others_go_on(
    mlxops, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = stand_in("python", 'echo "no room left" >&2; echo "hint: make some" >&2; exit 4')
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(self_test.sys, "executable", str(python))

    code, out, err = mlxops("doctor --self-test")

    lines = [line for line in out.splitlines() if line[:2] != "  "]
    assert code == 1
    assert [line.split()[1] for line in lines[:10]] == list(self_test._CHECKS)
    assert [line.split()[0] for line in lines[:10]] == ["broken"] * 9 + [lines[9].split()[0]]
    assert "`mlx-toolkit quickstart --tiny --iters 4 --dir project --json`: exit code 4: no room left" in out
    assert out.count("hint: ") >= 9
    assert err.splitlines()[-2].startswith("9 checks of 10 failed: device, environment, training, resume")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_on_a_mac_the_boot_and_the_network_are_known(a_mac: mac.Mac) -> None:
    with laboratory(here(), Path(sys.executable)) as lab:
        boot, network = self_test._boot(here(), lab), self_test._network(here(), lab)
        a_mac.answer("kern.bootsessionuuid", "")
        unknown = self_test._boot(here(), lab)

    assert [boot.level, network.level, unknown.level] == ["ok", "ok", "broken"]
    assert network.said == "the machine knows its runs under another name, too"


# what it leaves -------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_what_it_started_in_the_background_too_and_removes_its_folder() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted() -> None:
        with laboratory(here(), stand_in("python", "kill -INT $PPID; exec tail -f /dev/null")) as lab:
            started.append(subprocess.Popen(["tail", "-f", "/dev/null"], cwd=lab.folder, start_new_session=True))
            lab.run("lora")

    with pytest.raises(Interrupted) as stopped:
        interrupted()

    assert (stopped.value.exit_code, started[0].poll() is None) == (130, False)
    assert [each for each in psutil.Process().children(recursive=True) if "tail" in each.name()] == []
    assert list(Path.cwd().iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_hangs_is_ended_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laboratories, "PATIENCE", 0.0)

    hangs = pytest.raises(Unexpected, match=r"^`mlx-toolkit runs` did not end within 0 s$")
    with hangs, laboratory(here(), stand_in("python", "exec tail -f /dev/null")) as lab:
        lab.run("runs")

    assert list(Path.cwd().iterdir()) == []


def test_its_processes_have_no_settings_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXOPS_DB", "/elsewhere/runs.db")
    monkeypatch.setenv("INVOKE_MLXOPS_ITERS", "7")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    with laboratory(here(), stand_in("python", 'echo "[\\"$MLXOPS_DB$INVOKE_MLXOPS_ITERS$HF_HOME\\"]"')) as lab:
        found = lab.evaluate("")
        places = {name: Path(lab.environ[name]).parent for name in ("HOME", "MLXOPS_CACHE")}

    assert found == [""]
    assert places == dict.fromkeys(("HOME", "MLXOPS_CACHE"), lab.folder)


def test_a_folder_that_cannot_be_written_and_an_installation_without_mlx_are_sentences(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere = Invocation(project=Project.at(tmp_path / "nowhere"))
    with pytest.raises(Failed, match="the self-test cannot work in"), laboratory(nowhere, Path(sys.executable)):
        pass
    light = packages.installed(tmp_path, None)
    monkeypatch.setattr(packages, "installed", lambda *_: light.__class__(**{**vars(light), "versions": {}}))

    with pytest.raises(Failed, match="does without MLX") as failed:
        self_test.self_test(here(), lambda _: None, lambda _: pytest.fail("nothing is tried"))

    assert "`inv install-deps`" in (failed.value.hint or "")


def test_it_fixes_nothing(mlxops) -> None:
    code, _, err = mlxops("doctor --self-test --fix")

    assert (code, err.splitlines()[0]) == (2, "--self-test tries a temporary project out, and has nothing to fix")


def test_the_python_of_the_project_is_the_one_that_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".venv").mkdir()
    Path(".venv/pyvenv.cfg").write_text("version = 3.13.1\n")
    site = Path(".venv/lib/python3.13/site-packages/mlx-0.32.4.dist-info")
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx\nVersion: 0.32.4\n")
    tried: list[Laboratory] = []
    only = {"device": lambda _, lab: (tried.append(lab), Finding(check="device", level="ok", said="it computes"))[1]}
    monkeypatch.setattr(self_test, "_CHECKS", only)

    self_test.self_test(here(), lambda _: None, lambda _: nullcontext())

    assert [lab.python for lab in tried] == [environment.python_of(Path.cwd() / ".venv")]
