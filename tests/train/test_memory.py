"""The memory that a preview and a warning name is what the training then takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import training_runs
from shared_folders import Shared
from tiny_models import made_tiny
from training_runs import lora

from mlxops import registry
from mlxops.jobs.train import memory
from mlxops.projects import machine
from mlxops.training import batches

OPTIONS = ("--model", "tiny", "--name", "run", "--iters", "6", "--batch-size", "4", "--val-batches", "0")


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests: the smaller one takes so little memory that what is rounded up counts."""
    return made_tiny(shared)


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = training_runs.make_project(tmp_path / "project", tiny_model)
    (made / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    monkeypatch.chdir(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--fine-tune-type", "full"), ("--dtype", "bfloat16", "--num-layers", "1")])
def test_a_run_takes_what_its_preview_says(project: Path, mlxops, more: tuple[str, ...]) -> None:
    _, out, _ = mlxops(shlex.join(["lora", *OPTIONS, *more, "--preview", "--json"]))
    said = json.loads(out)

    ended = lora(project, *OPTIONS, *more, "--steps-per-report", "6")

    assert ended.code == 0, ended.said
    with registry.open_read_only(project / "runs.db") as db:
        (row,) = db.rows("SELECT value FROM metric WHERE name = 'peak_memory'")
    assert said["memory_bytes"] == pytest.approx(row["value"], rel=0.25)
    assert said["memory_free_bytes"] > said["memory_bytes"]


@pytest.mark.slow
def test_a_preview_names_the_memory_of_the_largest_batch(project: Path, mlxops) -> None:
    code, out, _ = mlxops(shlex.join(["lora", *OPTIONS, "--preview"]))
    larger = json.loads(mlxops(shlex.join(["lora", *OPTIONS, "--batch-size", "13", "--preview", "--json"]))[1])
    small = json.loads(mlxops(shlex.join(["lora", *OPTIONS, "--batch-size", "1", "--preview", "--json"]))[1])

    assert code == 0
    assert " at the largest batch; " in out
    assert larger["memory_bytes"] > 5 * small["memory_bytes"]
    assert larger["memory"]["model"] == small["memory"]["model"]


@pytest.mark.slow
def test_a_training_that_takes_more_than_is_free_warns_and_begins(project: Path, mlxops, monkeypatch) -> None:
    monkeypatch.setattr(memory, "room", lambda: 1000)

    code, _, err = mlxops(shlex.join(["lora", *OPTIONS, "--iters", "1"]))

    assert code == 0
    (line,) = [line for line in err.splitlines() if "memory" in line and "are free" in line]
    assert "warning: the largest batch takes about " in line
    assert "a smaller --batch-size or --max-seq-length, or --grad-checkpoint" in line


def test_a_training_whose_checkpoints_do_not_fit_fails_before_its_first_step(project, mlxops, monkeypatch) -> None:
    monkeypatch.setattr(machine, "free_disk", lambda folder: 1000)

    code, _, err = mlxops(shlex.join(["lora", *OPTIONS, "--iters", "1"]))

    assert code == 1
    assert "a checkpoint takes about " in err
    assert " has 1.0 kB free" in err


@pytest.mark.slow
def test_a_training_that_may_fill_the_disk_warns_and_begins(project: Path, mlxops, monkeypatch) -> None:
    options = shlex.join(["lora", *OPTIONS, "--iters", "2", "--save-every", "1"])
    size = json.loads(mlxops(f"{options} --preview --json")[1])["checkpoint_bytes"]
    monkeypatch.setattr(machine, "free_disk", lambda folder: int(2.5 * size))

    code, _, err = mlxops(options)

    assert code == 0
    (line,) = [line for line in err.splitlines() if "checkpoints of about" in line]
    assert "are free for 2 checkpoints" in line
    assert "a larger --save-every writes fewer" in line


def test_the_shapes_of_a_plan_are_those_of_its_batches() -> None:
    from small_trainings import rows

    plan = batches.plan(rows(11), batch_size=3, seed=0)

    made = [plan.batch(iteration) for iteration in range(1, len(plan) + 1)]

    assert plan.shapes == {each.arrays["mask"].shape for each in made}
