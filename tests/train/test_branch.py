"""Children of runs: where they begin, what goes over, what is refused, and that they survive as any run does."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import training_runs
from shared_folders import Shared
from training_runs import STEP, attempts, copy_project, lora, result, straight_project

from mlxops import registry
from mlxops.training.origin import without_origin

slow = pytest.mark.slow

SETTINGS = (
    *("--model", "tiny", "--num-layers", "2", "--batch-size", "2", "--save-every", "4", "--lora-dropout", "0.1"),
    *("--steps-per-report", "3", "--steps-per-eval", "5", "--val-batches", "2", "--learning-rate", "0.003"),
)
CHILD = (*SETTINGS, "--branch", "--from", "run:8", "--name", "child", "--seed", "7", "--iters", "13")


@pytest.fixture
def parent(tiny_model: Path) -> Path:
    """A project with a run that finished at 13, with checkpoints at 4, 8, 12 and 13 at least; tests copy it."""
    return straight_project(tiny_model, *SETTINGS, "--name", "run", "--iters", "13")


@pytest.fixture
def straight(parent: Path, shared: Shared, tmp_path: Path) -> Path:
    """The same project after the child was trained without interruption."""

    def train(folder: Path) -> None:
        ended = lora(copy_project(parent, folder / "project"), *CHILD)
        assert ended.code == 0, ended.said

    return copy_project(shared("branched", train) / "project", tmp_path / "straight")


@pytest.fixture
def project(tmp_path: Path, parent: Path) -> Path:
    """A copy of the project with the parent alone."""
    return copy_project(parent, tmp_path / "trained")


def tensors(project: Path, name: str, iteration: int) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(project / "adapters" / name / f"{iteration:07d}_adapters.safetensors")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def rows_of(project: Path) -> dict[str, dict[str, Any]]:
    with registry.open_read_only(project / "runs.db") as db:
        return {row["name"]: registry.find_run(db, row["name"]) for row in registry.list_runs(db)}


# where a child begins -----------------------------------------------------------------------------------------------


@slow
def test_a_child_of_the_same_settings_becomes_what_its_parent_became(project: Path) -> None:
    ended = lora(project, *SETTINGS, "--branch", "--from", "run:8", "--name", "twin", "--iters", "13")

    assert ended.code == 0, ended.said
    assert same(tensors(project, "twin", 8), tensors(project, "run", 8))
    assert same(tensors(project, "twin", 13), tensors(project, "run", 13))


@slow
def test_a_child_records_its_parent_and_the_iteration_at_which_it_left_it(straight: Path) -> None:
    rows = rows_of(straight)
    (attempt,) = attempts(straight, "child")

    assert (rows["child"]["parent_id"], rows["child"]["branch_iteration"]) == (rows["run"]["id"], 8)
    assert (attempt["start_kind"], attempt["from_iteration"], attempt["to_iteration"]) == ("branch", 8, 13)
    assert attempt["start_note"] == "a branch of run at iteration 8; its optimizer state is kept"


@slow
def test_a_childs_curve_begins_where_it_left_its_parent(straight: Path) -> None:
    got = result(straight, "child")

    assert min(iteration for _, iteration in got["metrics"]) == 8
    assert next(row["iteration"] for row in got["checkpoints"]) == 8
    assert same(tensors(straight, "child", 8), tensors(straight, "run", 8))


@slow
def test_other_settings_make_another_child_out_of_the_same_weights(straight: Path) -> None:
    assert not same(tensors(straight, "child", 13), tensors(straight, "run", 13))


@slow
def test_another_optimizer_begins_anew_and_says_so(project: Path) -> None:
    ended = lora(project, *SETTINGS, "--branch", "--from", "run:8", "--optimizer", "sgd", "--iters", "9")

    assert ended.code == 0, ended.said
    assert "a branch of run at iteration 8; the optimizer starts fresh" in ended.said


@slow
@pytest.mark.parametrize(("place", "iteration"), [("", 13), (":last", 13), (":4", 4)])
def test_from_takes_the_newest_checkpoint_or_the_one_it_names(project: Path, place: str, iteration: int) -> None:
    ended = lora(project, *SETTINGS, "--branch", "--from", f"run{place}", "--seed", "7", "--iters", "20", "--preview")

    assert ended.code == 0, ended.said
    assert f"a branch of run at iteration {iteration};" in ended.said


@slow
@pytest.mark.parametrize("source", ["ru:8", "1:8"])
def test_a_child_goes_on_where_a_part_of_its_parents_name_is_in_its_own_name(project: Path, source: str) -> None:
    command = (*SETTINGS, "--branch", "--from", source, "--name", "grunt", "--seed", "7", "--iters", "9")
    first = lora(project, *command)

    again = lora(project, *command)

    assert (first.code, again.code) == (0, 0), again.said
    assert "already at iteration 9" in again.said


@slow
def test_from_best_takes_the_checkpoint_of_the_lowest_validation_loss(project: Path) -> None:
    with registry.open_read_only(project / "runs.db") as db:
        (best,) = db.rows("SELECT iteration FROM checkpoints WHERE is_best")

    ended = lora(project, *SETTINGS, "--branch", "--from", "run:best", "--seed", "7", "--iters", "20", "--preview")

    assert f"a branch of run at iteration {best['iteration']};" in ended.said


@slow
def test_without_from_a_branch_leaves_the_run_that_differs_least(project: Path) -> None:
    assert lora(project, *SETTINGS, "--name", "far", "--seed", "7", "--batch-size", "3", "--iters", "1").code == 0

    ended = lora(project, *SETTINGS, "--branch", "--seed", "8", "--iters", "20", "--preview")

    assert "a branch of run at iteration 13;" in ended.said


@slow
def test_a_preview_of_a_branch_makes_nothing(project: Path) -> None:
    before = sorted(path.name for path in (project / "adapters").rglob("*"))

    ended = lora(project, *CHILD, "--preview", "--json")

    told = json.loads(ended.said[ended.said.index("{") :])
    assert (told["decision"], told["iteration"], ended.code) == ("new", 8, 0)
    assert sorted(path.name for path in (project / "adapters").rglob("*")) == before
    assert list(rows_of(project)) == ["run"]


# the same command again ---------------------------------------------------------------------------------------------


KILLS = (
    # before its first checkpoint is whole: in the settings, at its beginning, and as its files are written
    ("mlxops.adapters.adapter_config:write", 1),
    ("mlxops.training.first_checkpoint:write", 1),
    ("mlxops.files:sync", 3),
    ("mlxops.files:sync", 5),
    # with the checkpoint of its origin alone, in a step and in its second checkpoint
    (STEP, 1),
    (STEP, 3),
    (training_runs.CHECKPOINT, 2),
)
"""What kills a child that is started again and again: before that call of its process."""


@slow
def test_a_child_that_was_killed_goes_on_exactly(project: Path, straight: Path) -> None:
    for place, call in KILLS:
        died = lora(project, *CHILD, first=partial(training_runs.signal_itself, signal.SIGKILL, place, call))
        assert died.code == -signal.SIGKILL, died.said

    ended = lora(project, *CHILD)

    assert ended.code == 0, ended.said
    assert list(rows_of(project)) == ["child", "run"]
    assert result(project, "child") == result(straight, "child")


@slow
def test_a_child_without_a_name_is_found_again(project: Path) -> None:
    command = [*CHILD[: CHILD.index("--name")], "--seed", "7", "--iters", "13"]
    lora(project, *command, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 3))

    ended, again = lora(project, *command), lora(project, *command)

    assert (ended.code, again.code) == (0, 0)
    assert "already at iteration 13" in again.said
    assert len(rows_of(project)) == 2


@slow
@pytest.mark.parametrize("source", [("--from", "run"), ("--from", "latest"), ()])
def test_a_child_goes_on_when_its_parent_has_come_further(project: Path, source: tuple[str, ...]) -> None:
    command = (*SETTINGS, "--branch", *source, "--seed", "7", "--iters", "15")
    lora(project, *command, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 2))
    assert lora(project, *SETTINGS, "--name", "run", "--iters", "14").code == 0

    ended = lora(project, *command)

    assert ended.code == 0, ended.said
    assert len(rows_of(project)) == 2


@slow
def test_a_child_goes_on_by_its_name_alone_and_is_extended(straight: Path, tmp_path: Path) -> None:
    project = copy_project(straight, tmp_path / "copy")

    ended = lora(project, *SETTINGS, "--name", "child", "--seed", "7", "--iters", "15")

    assert ended.code == 0, ended.said
    assert "finished at 13, extends to 15" in ended.said


@slow
def test_new_makes_another_child(straight: Path, tmp_path: Path) -> None:
    project = copy_project(straight, tmp_path / "copy")
    command = [*CHILD[: CHILD.index("--name")], "--seed", "7", "--iters", "13", "--new"]

    ended = lora(project, *command)

    assert ended.code == 0, ended.said
    assert len(rows_of(project)) == 3


@slow
def test_a_family_is_taken_from_its_folders_where_the_registry_is_lost(straight: Path, tmp_path: Path) -> None:
    project = copy_project(straight, tmp_path / "copy")
    for path in project.glob("runs.db*"):
        path.unlink()
    (project / "tasks.py").touch()

    ended = lora(project, *CHILD)

    rows = rows_of(project)
    assert "already at iteration 13" in ended.said
    assert (rows["child"]["parent_id"], rows["child"]["branch_iteration"]) == (rows["run"]["id"], 8)


@slow
def test_a_child_whose_parent_is_deleted_still_goes_on(straight: Path, tmp_path: Path) -> None:
    project = copy_project(straight, tmp_path / "copy")
    shutil.rmtree(project / "adapters" / "run")

    ended = lora(project, *CHILD, "--iters", "15")

    assert ended.code == 0, ended.said
    assert "finished at 13, extends to 15" in ended.said


@slow
def test_a_child_without_checkpoints_says_that_its_parents_are_gone(project: Path) -> None:
    lora(project, *CHILD, first=partial(training_runs.signal_itself, signal.SIGKILL, training_runs.CHECKPOINT, 1))
    shutil.rmtree(project / "adapters" / "run")

    ended = lora(project, *CHILD)

    assert ended.code == 1
    assert "this run begins with" in ended.said
    assert "0000008_adapters.safetensors is gone" in ended.said


@slow
def test_a_branch_with_nothing_but_a_rate_begins_in_the_run_it_leaves_and_resumes(project: Path) -> None:
    typed = ("--branch", "--from", "run:8", "--learning-rate", "0.001", "--name", "child")
    first = lora(project, *typed, "--iters", "10")
    again = lora(project, *typed, "--iters", "10")

    assert (first.code, again.code) == (0, 0), first.said + again.said
    child = rows_of(project)["child"]
    parent = rows_of(project)["run"]
    decided = dict(child["config"]["deciding"], learning_rate=parent["config"]["deciding"]["learning_rate"])
    assert without_origin(decided) == without_origin(parent["config"]["deciding"])
    assert "already at iteration 10" in again.said


@slow
def test_run_show_draws_the_family(straight: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(straight)

    _, out, _ = mlxops("run.show run")
    _, told, _ = mlxops("run.show run --json")

    assert "child  from 8, completed at 13/13" in out
    assert [row["run"] for row in json.loads(told)["lineage"]] == ["run", "child"]


# what is refused ----------------------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (("--from", "run:8", "--lora-rank", "4"), 3, "lora_rank: was 8, now 4"),
        (("--from", "run:8", "--num-layers", "1"), 3, "give --num-layers 2"),
        (("--from", "run:9"), 2, "no checkpoint at iteration 9"),
        (("--from", "rum"), 2, "did you mean 'run'?"),
        (("--from", "run:soon"), 2, "'run:soon' names no checkpoint"),
        (("--from", "run:8", "--iters", "8"), 2, "`--iters 16` trains 8 more"),
    ],
)
def test_a_branch_that_cannot_be_is_refused(project: Path, typed: tuple[str, ...], code: int, said: str) -> None:
    ended = lora(project, *SETTINGS, "--branch", "--iters", "20", *typed)

    assert (ended.code, list(rows_of(project))) == (code, ["run"])
    assert said in ended.said


@slow
def test_a_damaged_checkpoint_is_said_with_those_that_are_there(project: Path) -> None:
    path = project / "adapters" / "run" / "0000008_adapters.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = training_runs.contents(project / "adapters" / "run")

    ended = lora(project, *CHILD)

    assert (ended.code, training_runs.contents(project / "adapters" / "run")) == (1, before)
    assert "at iteration 8 cannot be used" in ended.said
    assert "12, 13" in ended.said


@slow
def test_a_checkpoint_without_its_state_gives_its_weights(project: Path) -> None:
    with registry.open_registry(project / "runs.db") as db:
        registry.mark_pruned(db, rows_of(project)["run"]["id"], states=[8], adapters=[])
    (project / "adapters" / "run" / "0000008_state.safetensors").unlink()

    ended = lora(project, *CHILD)

    assert ended.code == 0, ended.said
    assert "a branch of run at iteration 8; the optimizer starts fresh" in ended.said
    assert same(tensors(project, "child", 8), tensors(project, "run", 8))


def test_from_belongs_to_branch(mlxops: Any, tiny_model: Path) -> None:
    code, _, err = mlxops(f"lora --model '{tiny_model}' --from run:8")

    assert (code, "give `--branch` with it" in err) == (2, True)
