"""`train.stop`: the very process that works on a run is asked to save and end, and no other ever gets a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import training_runs
from commands import Ended
from ready_programs import run_forked
from shared_folders import Shared
from training_runs import CHECKPOINT, LOADING, STEP, Command, assert_exact, lora, pause_before, straight

from mlxops import registry
from mlxops.config import StopConfig
from mlxops.errors import Interrupted
from mlxops.jobs.train.stop import stop
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import lock

pytestmark = pytest.mark.slow

Toolkit = Callable[..., Ended]

RUN = (*training_runs.RUN, "--val-batches", "0")
"""A run that only saves at 4, 8, 12 and 13."""


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project to train in, and the current folder."""
    made = training_runs.make_project(tmp_path / "trained", tiny_model)
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def recorded(project: Path, tiny_model: Path, shared: Shared) -> Path:
    """The same with a run that was killed in step 6, whose attempt still stands open."""

    def train(folder: Path) -> None:
        made = training_runs.make_project(folder / "project", tiny_model)
        lora(made, *RUN, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 6))

    made = shared("killed-in-step-6", train) / "project"
    return Path(shutil.copytree(made, project, symlinks=True, dirs_exist_ok=True))


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with training, and waits."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def change_attempt(project: Path, **columns: Any) -> None:
    """Have the last attempt of the project's run say something else of its process."""
    with registry.open_registry(project / "runs.db") as db:
        for name, value in columns.items():
            db.connection.execute(f"UPDATE attempts SET {name} = ?", (value,))


def wait_in(project: Path, place: str, call: int) -> Command:
    """A training that has reached a call and resumes from there when it is asked to stop."""
    reached, _ = training_runs.gates()
    command = Command(project, RUN, partial(training_runs.wait_for_a_signal, reached.set, place, call))
    reached.wait()
    return command


# asked to stop -------------------------------------------------------------------------------------------------------


def test_a_running_training_saves_and_stops(project: Path, tiny_model: Path, mlxops: Toolkit) -> None:
    training = wait_in(project, STEP, 7)

    code, out, err = mlxops("train.stop run")
    lora(project, *RUN)

    assert (code, training.wait().code) == (0, 128 + signal.SIGTERM)
    assert out.splitlines()[:2] == ["run: stopped at iteration 7 of 13", "resumes from  iteration 7"]
    assert f"'run' (process {training.pid}) was asked to save and stop" in err
    assert training_runs.steps_trained(project) == 13
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_training_that_is_loading_its_model_stops_before_its_first_step(project: Path, mlxops: Toolkit) -> None:
    training = wait_in(project, LOADING, 2)  # the first only tries whether the model can be trained

    code, out, _ = mlxops("train.stop run --json")

    assert (code, training.wait().code) == (0, 128 + signal.SIGTERM)
    stopped = json.loads(out)
    assert (stopped["state"], stopped["status"], stopped["goes_on_from"]) == ("stopped", "interrupted", 0)


def test_a_training_that_has_no_attempt_yet_stops(project: Path, tiny_model: Path, mlxops: Toolkit) -> None:
    reached, go_on = training_runs.gates()
    training = Command(project, RUN, partial(pause_before, "mlxops.jobs.train.environment:set_up", 1, reached, go_on))
    reached.wait()

    code, out, _ = mlxops("train.stop run --json")
    lora(project, *RUN)

    assert (code, training.wait().code) == (0, -signal.SIGTERM)
    assert (json.loads(out)["state"], json.loads(out)["goes_on_from"]) == ("stopped", 0)
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_training_that_is_stopping_already_is_only_waited_for(project: Path, tiny_model: Path) -> None:
    reached, go_on = training_runs.gates()
    training = Command(project, RUN, partial(_stop_and_pause_in_the_writer, reached, go_on))
    reached.wait()

    # a second signal would end it at once, without its checkpoint
    said: list[str] = []
    stopped = stop(settings_of(project), StopConfig(run="run"), meanwhile(go_on.set, said))
    lora(project, *RUN)

    assert training.wait().code == 128 + signal.SIGINT
    assert "is stopping already (SIGINT)" in said[0]
    assert (stopped.state, stopped.iteration, stopped.goes_on_from) == ("stopped", 6, 6)
    assert_exact(project, straight(tiny_model, *RUN))


def _stop_and_pause_in_the_writer(reached: Event, go_on: Event) -> None:
    training_runs.signal_before(signal.SIGINT, STEP, 6)
    pause_before(CHECKPOINT, 2, reached, go_on)


def test_ctrl_c_while_waiting_leaves_the_training_to_end_by_itself(project: Path) -> None:
    reached, go_on = training_runs.gates()
    training = Command(project, RUN, partial(pause_before, STEP, 6, reached, go_on))
    reached.wait()

    with pytest.raises(Interrupted, match="no longer waiting: 'run' was asked to save and stop") as interrupted:
        stop(settings_of(project), StopConfig(run="run"), meanwhile(partial(signal.raise_signal, signal.SIGINT)))
    go_on.set()

    assert interrupted.value.exit_code == 130
    assert training.wait().code == 128 + signal.SIGTERM
    assert training_runs.attempts(project, "run")[-1]["end_reason"] == "SIGTERM"


def test_a_training_that_reaches_its_target_meanwhile_is_finished(project: Path, mlxops: Toolkit) -> None:
    training = wait_in(project, CHECKPOINT, 4)

    code, out, _ = mlxops("train.stop run")

    assert (code, training.wait().code) == (0, 0)
    assert out == "run: finished at iteration 13 of 13\n"


def settings_of(project: Path) -> Invocation:
    """What a job is told in this project."""
    return Invocation(project=Project.at(project))


def meanwhile(act: Callable[[], object], said: list[str] | None = None) -> Any:
    """What is done once the training was asked, instead of showing that it is waited for."""

    @contextmanager
    def waiting(text: str) -> Iterator[None]:
        if said is not None:
            said.append(text)
        act()
        yield

    return waiting


# killed --------------------------------------------------------------------------------------------------------------


def test_now_kills_a_training_and_says_where_it_goes_on(project: Path, tiny_model: Path, mlxops: Toolkit) -> None:
    reached, go_on = training_runs.gates()
    training = Command(project, RUN, partial(pause_before, STEP, 7, reached, go_on))
    reached.wait()

    code, out, _ = mlxops("train.stop run --now")
    lora(project, *RUN)

    assert (code, training.wait().code) == (0, -signal.SIGKILL)
    assert out.splitlines()[:2] == [
        "run: killed; the last it told was iteration 6 of 13",
        "resumes from  iteration 4",
    ]
    assert training_runs.attempts(project, "run")[-1]["from_iteration"] == 4
    assert_exact(project, straight(tiny_model, *RUN))


# nobody at work ------------------------------------------------------------------------------------------------------


def test_a_run_that_is_not_at_work_is_said_to_be_so(project: Path, mlxops: Toolkit) -> None:
    lora(project, *RUN, "--iters", "2")

    assert mlxops("train.stop run") == (0, "run: not at work (completed at iteration 2 of 2)\n", "")


def test_a_lost_run_is_said_to_be_lost_and_where_it_goes_on(recorded: Path, mlxops: Toolkit) -> None:
    code, out, _ = mlxops("train.stop run")

    assert code == 0
    assert out.startswith("run: its process was lost at iteration 4 of 13\nlast seen     20")
    assert "\nresumes from  iteration 4\n" in out


def test_a_run_that_is_not_there_is_a_wrong_request(recorded: Path, mlxops: Toolkit) -> None:
    code, _, err = mlxops("train.stop rum")

    assert (code, err) == (2, "no run 'rum'\nhint: did you mean 'run'?\n")


# never another process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [{}, {"boot_id": "another start of this machine"}])
@pytest.mark.parametrize("now", ["", "--now"])
def test_a_process_that_has_the_id_by_now_gets_no_signal(
    recorded: Path, mlxops: Toolkit, bystander: subprocess.Popen[bytes], columns: dict[str, str], now: str
) -> None:
    # after a start of the machine even the ticks since then may be equal
    started = {"process_started": registry.process_start(bystander.pid)} if columns else {}
    change_attempt(recorded, pid=bystander.pid, **columns, **started)

    code, out, _ = mlxops(f"train.stop run --json {now}")

    assert (code, json.loads(out)["state"]) == (0, "lost")
    assert bystander.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces of processes")
def test_a_process_that_only_a_lock_names_wrongly_gets_no_signal(
    recorded: Path, mlxops: Toolkit, bystander: subprocess.Popen[bytes]
) -> None:
    path = recorded / "adapters" / "run" / lock.NAME
    namespace = (registry.process_start(bystander.pid) or "").split()[0]
    said = {**lock.holder_of(path), "pid": bystander.pid, "process_started": f"{namespace} 1"}
    container = {**said, "process_started": "pid:[1] 4711"}

    with lock.hold(path, said, what="the run"):
        recycled = mlxops("train.stop run")
    with lock.hold(path, container, what="the run"):
        foreign = mlxops("train.stop run")

    assert (recycled[0], foreign[0]) == (0, 3)
    assert f"nothing proves that process {bystander.pid} here is the one that trains 'run'" in foreign[2]
    assert bystander.poll() is None


def test_a_training_on_another_machine_is_named_with_the_command_for_it(
    recorded: Path, mlxops: Toolkit, bystander: subprocess.Popen[bytes]
) -> None:
    started = registry.process_start(bystander.pid)
    change_attempt(recorded, host="ibis", pid=bystander.pid, process_started=started, heartbeat_at="2999-01-01")

    code, _, err = mlxops("train.stop run")

    assert code == 3
    assert f"the run 'run' is trained by process {bystander.pid} on ibis, and this is {registry.this_host()}\n" in err
    assert f"hint: ssh ibis 'cd {recorded} && mlx-toolkit train.stop run'\n" in err
    assert bystander.poll() is None


def test_a_training_on_another_machine_that_fell_silent_is_lost(recorded: Path, mlxops: Toolkit) -> None:
    change_attempt(recorded, host="ibis", heartbeat_at="2020-01-01T00:00:00.000Z")

    code, out, _ = mlxops("train.stop run")

    assert code == 0
    assert "last seen     2020-01-01T00:00:00.000Z on ibis\n" in out


_WITHOUT_PRIVILEGES = """
import sys
import training_runs
training_runs.obey_permissions()
from mlxops.__main__ import program
sys.argv = ["mlx-toolkit", "train.stop", "run"]
program.run()
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="takes root to be two users")
def test_a_training_of_another_user_is_named_and_left_alone(recorded: Path) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user="nobody") as theirs:
        change_attempt(recorded, pid=theirs.pid, process_started=registry.process_start(theirs.pid))

        code, _, err = run_forked("-c", _WITHOUT_PRIVILEGES)

        assert code == 1
        assert f"process {theirs.pid}, which trains 'run', is nobody's: you may not signal it\n" in err
        assert f"hint: sudo kill -TERM {theirs.pid}, or ask them\n" in err
        assert theirs.poll() is None
        theirs.kill()
