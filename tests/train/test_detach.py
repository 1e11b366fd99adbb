"""`lora --detach`: a training that no terminal holds, and what is said where it does not come to its first step."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from commands import Ended
from forked_modules import FORKING
from training_runs import RUN, assert_exact, lora, straight, straight_project

from mlxops.config import LoraConfig
from mlxops.jobs.train import detach
from mlxops.jobs.train import session as train
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import lock

pytestmark = pytest.mark.slow

Toolkit = Callable[..., Ended]
COMMAND = f"lora {shlex.join(RUN)}"
LONG = f"{COMMAND} --iters 100000 --save-every 100000 --detach"


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project to train in, and the current folder; its processes compute as those of the other tests do."""
    made = training_runs.make_project(tmp_path / "trained", tiny_model)
    monkeypatch.chdir(made)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return made


@pytest.fixture
def begun(project: Path, tiny_model: Path) -> Path:
    """The same with a run that is finished at iteration 2."""
    made = straight_project(tiny_model, *RUN, "--iters", "2")
    return Path(shutil.copytree(made, project, symlinks=True, dirs_exist_ok=True))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are forked from a server that has loaded all they need, for tests of how they end."""
    monkeypatch.setattr(detach, "subprocess", FORKING)


def log_of(project: Path) -> str:
    """What the run's log says."""
    return (project / "adapters" / "run" / "train.log").read_text(encoding="utf-8")


def ended(pid: int) -> int:
    """The exit code of a training that this process started in the background, when it has ended."""
    for each in multiprocessing.active_children():
        if each.pid == pid:
            each.join()
            return each.exitcode or 0
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def nobody_trains(project: Path) -> bool:
    """Whether no process holds the run."""
    return not lock.is_held(project / "adapters" / "run" / lock.NAME)


# started -------------------------------------------------------------------------------------------------------------


def test_a_detached_training_ends_as_one_in_the_foreground(project: Path, tiny_model: Path, mlxops: Toolkit) -> None:
    code, out, err = mlxops(f"{COMMAND} --detach")
    (pid,) = (int(line.split()[1]) for line in out.splitlines() if line.startswith("process"))

    assert (code, ended(pid)) == (0, 0)
    assert out.splitlines() == [
        "run: training in the background",
        f"process  {pid}",
        "log      adapters/run/train.log",
        "mlx-toolkit monitor --run run shows it",
        "mlx-toolkit train.stop run has it save and stop",
    ]
    assert err == f"starting it in the background (process {pid})\n"
    assert "run: finished at iteration 13 of 13" in log_of(project)
    assert_exact(project, straight(tiny_model, *RUN))


def test_a_detached_training_has_no_terminal_and_no_hangup_ends_it(project: Path, mlxops: Toolkit) -> None:
    started = json.loads(mlxops(f"{LONG} --json")[1])
    session = os.getsid(started["pid"])
    os.kill(started["pid"], signal.SIGHUP)

    running = json.loads(mlxops("runs --json")[1])
    watched = json.loads(mlxops("monitor --run run --json")[1])
    stopped = json.loads(mlxops("train.stop run --json")[1])

    assert ended(started["pid"]) == 128 + signal.SIGTERM
    assert session == started["pid"]
    assert [run["status"] for run in running] == ["running"]
    assert [attempt["pid"] for attempt in watched["attempts"]] == [started["pid"]]
    assert (stopped["state"], stopped["pid"]) == ("stopped", started["pid"])


def test_the_log_goes_on_where_the_run_goes_on(project: Path, programs: Path) -> None:
    (project / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    starts = []
    for _ in range(2):
        # that it returns shows that the training holds nothing of what its terminal reads
        started = _typed(programs / "inv", f"{LONG} --json")
        stopped = _typed(programs / "inv", "train.stop run")
        assert (started.returncode, stopped.returncode) == (0, 0), started.stderr + stopped.stderr
        starts.append(json.loads(started.stdout)["commands"])

    heads = [line.split("  ", 1)[1] for line in log_of(project).splitlines() if line.startswith("--- ")]
    assert starts == [["inv monitor --run run", "inv train.stop run"]] * 2
    assert heads == [f"inv {LONG.removesuffix(' --detach')} --json"] * 2
    assert log_of(project).count("stopped by SIGTERM\n") == 2
    assert nobody_trains(project)


def _typed(program: Path, words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *shlex.split(words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_of_two_detached_at_once_one_trains_and_the_other_says_so(
    project: Path, programs: Path, mlxops: Toolkit
) -> None:
    with ThreadPoolExecutor() as together:
        both = list(together.map(partial(_typed, programs / "mlx-toolkit"), [LONG, LONG]))
    stopped = mlxops("train.stop run")

    assert sorted(process.returncode for process in both) == [0, 3]
    assert any("the run 'run' is being worked on by process" in process.stderr for process in both)
    assert stopped[0] == 0
    assert len(training_runs.attempts(project, "run")) == 1


# not started ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        pytest.param("--model nowhere", 2, "nowhere", id="a model that is not there"),
        pytest.param("--lora-rank 4", 3, "lora_rank: was 8, now 4", id="other settings"),
        pytest.param("--iters 2", 0, "already", id="a run that is finished"),
    ],
)
def test_what_cannot_begin_is_said_at_once_and_in_the_foreground(
    begun: Path, mlxops: Toolkit, options: str, code: int, words: str
) -> None:
    got, out, err = mlxops(f"{COMMAND} {options} --detach")

    assert got == code
    assert words in out + err
    assert "in the background" not in err
    assert not (begun / "adapters" / "run" / "train.log").exists()


@pytest.mark.usefixtures("forked")
def test_a_training_that_fails_before_its_first_step_hands_on_its_words_and_its_code(
    begun: Path, mlxops: Toolkit
) -> None:
    settings = begun / "adapters" / "run" / "adapter_config.json"
    settings.unlink()
    settings.mkdir()

    code, out, err = mlxops(f"{COMMAND} --detach")

    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"the run's folder '{settings.parent}' cannot be written: ")
    assert log_of(begun).endswith(err.splitlines()[-1] + "\n")


@pytest.mark.usefixtures("forked")
def test_a_training_whose_log_cannot_be_written_does_not_begin(begun: Path, mlxops: Toolkit) -> None:
    (begun / "adapters" / "run" / "train.log").mkdir()

    code, _, err = mlxops(f"{COMMAND} --detach")

    assert code == 1
    assert err.splitlines()[-1].endswith("train.log' cannot be written: Is a directory")
    assert len(training_runs.attempts(begun, "run")) == 1


@pytest.mark.usefixtures("forked")
def test_ctrl_c_before_the_first_step_ends_what_was_started(project: Path) -> None:
    invocation = Invocation(project=Project.at(project), command=f"mlx-toolkit {LONG}")
    values: dict[str, Any] = {"model": "tiny", "name": "run", "num_layers": 2, "iters": 100_000, "detach": True}
    training = train.check(invocation, LoraConfig(**values), lambda what, done, total: None)

    with pytest.raises(KeyboardInterrupt):
        detach.start(training, _ctrl_c)

    assert nobody_trains(project)


@contextmanager
def _ctrl_c(text: str) -> Iterator[None]:
    signal.raise_signal(signal.SIGINT)
    yield


@pytest.mark.usefixtures("forked")
def test_a_run_that_was_killed_before_its_first_step_begins_after_all(
    project: Path, tiny_model: Path, mlxops: Toolkit
) -> None:
    folder = project / "adapters" / "run"
    lora(project, *RUN, first=_die_loading)
    (folder / "train.log").write_text("--- all there is\n")

    code, out, _ = mlxops(f"{COMMAND} --detach --json")

    assert (code, ended(json.loads(out)["pid"])) == (0, 0)
    assert_exact(project, straight(tiny_model, *RUN))


def _die_loading() -> None:
    training_runs.signal_itself(signal.SIGKILL, "mlxops.jobs.train.environment:set_up", 1)
