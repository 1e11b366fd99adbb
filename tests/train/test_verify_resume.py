"""`lora --verify-resume`: a verdict on these very settings, and nothing of the project touched by it."""

from __future__ import annotations

import json
import multiprocessing.util
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import training_runs
from commands import Ended
from forked_modules import FORKING
from training_runs import RUN, lora

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, Failed, Interrupted
from mlxops.jobs.train import session, verify_resume
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import checkpoints

pytestmark = pytest.mark.slow

Toolkit = Callable[..., Ended]
COMMAND = f"lora {shlex.join(RUN)} --verify-resume 4"


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project to train in, and the current folder; its processes compute as those of the other tests do."""
    made = training_runs.make_project(tmp_path / "trained", tiny_model)
    monkeypatch.chdir(made)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return made


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary ones are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    multiprocessing.util.get_temp_dir()  # chosen once a process: the path of a socket in it must not be too long
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are forked from a server that has loaded all they need; `doctor --self-test` starts real ones."""
    monkeypatch.setattr(verify_resume, "subprocess", FORKING)


def events(project: Path) -> list[dict[str, Any]]:
    """The verdicts in the history of the run."""
    with registry.open_read_only(project / "runs.db") as db:
        told = registry.events_of(db, registry.find_run(db, "run")["id"])
    return [each for each in told if each["kind"] == "verify resume"]


def training(project: Path, **changed: Any) -> session.Training:
    """A checked training, of which three iterations are to be tried."""
    values: dict[str, Any] = {"model": "tiny", "num_layers": 2, "batch_size": 2, "verify_resume": 3, **changed}
    invocation = Invocation(project=Project.at(project), cache=Path(os.environ["MLXOPS_CACHE"]))
    return session.check(invocation, LoraConfig(**values), lambda what, done, total: None)


def when(moment: tuple[str, int], act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """A listener to progress that does something at one moment: what is under way, and how far."""

    def heard(what: str, done: int, total: int) -> None:
        if (what, done) == moment:
            act()

    return heard


# equal ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked")
def test_the_verdict_stands_in_the_history_of_the_run_and_nothing_else_of_it_changes(
    project: Path, temporary: Path, mlxops: Toolkit
) -> None:
    lora(project, *RUN, "--iters", "2")
    before, trained = training_runs.contents(project / "adapters" / "run"), training_runs.attempts(project, "run")

    code, out, err = mlxops(f"{COMMAND} --json")

    verdict = json.loads(out)
    assert (code, verdict["run"], verdict["equal"]) == (0, "run", True)
    assert (verdict["iterations"], verdict["interrupted_after"], verdict["device"]) == (4, 2, "cpu")
    assert {part["part"]: part["compared"] > 0 for part in verdict["parts"]} == {
        "resumes from 2": True,
        "adapter": True,
        "weights to resume from": True,
        "optimizer state": True,
        "accumulated gradients": True,
        "counters": True,
        "metrics": True,
    }
    assert err.splitlines() == ["without a stop: 4", "killed after 2: 4", "resuming: 4"]
    assert [event["detail"] for event in events(project)] == [{k: v for k, v in verdict.items() if k != "run"}]
    assert training_runs.contents(project / "adapters" / "run") == before
    assert training_runs.attempts(project, "run") == trained
    assert list(temporary.glob("mlxops-*")) == []
    assert not (Path(os.environ["MLXOPS_CACHE"]) / "projects").exists()  # of none that are gone


@pytest.mark.usefixtures("forked")
def test_without_a_run_the_verdict_waits_for_the_first_of_these_settings(project: Path, mlxops: Toolkit) -> None:
    code, out, _ = mlxops(f"{COMMAND} --verify-resume 2")
    lora(project, *RUN, "--name", "other", "--iters", "1", "--seed", "5", "--val-batches", "0")
    lora(project, *RUN, "--iters", "1")

    assert code == 0
    assert out.startswith(
        "A training of 2 iterations, killed after 1 and resumed, ends as one without a stop, bit for bit\n"
    )
    assert out.endswith("on the cpu; the verdict waits for the first run of these settings\n")
    (event,) = events(project)
    assert (event["level"], event["detail"]["iterations"]) == ("info", 2)
    assert json.loads((project / ".mlxops" / "verified.json").read_text()) == {}


# not equal -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked")
def test_another_state_to_go_on_with_is_found_out_and_measured(project: Path, temporary: Path) -> None:
    tamper = when(("resuming", 0), lambda: _change_the_optimizer(*temporary.glob("*/cut/adapters/trial")))

    verdict = verify_resume.verify(training(project), tamper)

    parts = {part.part: part for part in verdict.parts}
    assert (verdict.equal, verdict.repeats_without_a_stop) == (False, True)
    assert [name for name, part in parts.items() if part.equal] == [
        "resumes from 1",
        "accumulated gradients",
    ]
    assert 0 < parts["adapter"].largest_absolute_difference < 1
    assert 0 < parts["adapter"].largest_relative_difference <= 2
    with pytest.raises(Failed, match=r"in: adapter, weights to resume from, optimizer state, counters, metrics$"):
        verify_resume.check(verdict)


def _change_the_optimizer(folder: Path) -> None:
    """Give the checkpoint in a folder other moments, in files that are whole."""
    (found,) = (checkpoints.read(folder, iteration) for iteration in checkpoints.iterations(folder))
    assert isinstance(found, checkpoints.Checkpoint)
    weights, optimizer, accumulated = checkpoints.load(found)
    changed = {name: value * 2 if value.dtype == mx.float32 else value for name, value in optimizer.items()}
    checkpoints.write(
        folder,
        weights=weights,
        weights_to_go_on=None,
        optimizer=changed,
        accumulated=accumulated,
        counters=found.counters,
        random=0,
        fingerprint=found.fingerprint,
        environment=found.environment,
        run=found.run,
    )


@pytest.mark.usefixtures("forked")
def test_a_training_that_begins_anew_proves_nothing(project: Path, temporary: Path, mlxops: Toolkit) -> None:
    forget = when(
        ("resuming", 0), lambda: [path.unlink() for path in temporary.glob("*/cut/adapters/trial/*_state.safetensors")]
    )

    verdict = verify_resume.verify(training(project), forget)

    assert {part.part: part.equal for part in verdict.parts}["adapter"]
    assert verdict.parts[0].differing == ["fresh from 0", "fresh from 0"]
    assert not verdict.equal


def test_a_device_that_does_not_repeat_itself_is_named_as_the_reason() -> None:
    part = verify_resume.ComparedValues(part="metrics", equal=False, compared=1, differing=["train_loss at 1"])
    verdict = verify_resume.Verdict(
        equal=False,
        iterations=2,
        interrupted_after=1,
        device="gpu",
        repeats_without_a_stop=False,
        parts=[part],
        seconds=1.0,
    )

    with pytest.raises(Failed) as failed:
        verify_resume.check(verdict)

    assert failed.value.exit_code == 1
    assert "not deterministic" in (failed.value.hint or "")


# cut short -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Interrupted), (signal.SIGHUP, Interrupted)],
)
def test_nothing_is_left_of_a_verification_that_is_ended(
    project: Path, temporary: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        verify_resume.verify(training(project), when(("without a stop", 1), lambda: signal.raise_signal(number)))

    assert list(temporary.glob("mlxops-*")) == []
    assert not (project / ".mlxops" / "verified.json").exists()


@pytest.mark.usefixtures("forked")
def test_a_trial_that_fails_hands_on_its_words(project: Path, temporary: Path) -> None:
    lose = when(("without a stop", 0), lambda: shutil.rmtree(project / "models" / "tiny", ignore_errors=True))

    with pytest.raises(Failed, match=r"the training 'without a stop' ended before its time: .*tiny"):
        verify_resume.verify(training(project), lose)

    assert list(temporary.glob("mlxops-*")) == []


def test_it_is_not_for_the_background(project: Path) -> None:
    with pytest.raises(BadRequest, match="--detach leaves nobody to see it"):
        verify_resume.verify(training(project, detach=True), lambda what, done, total: None)
