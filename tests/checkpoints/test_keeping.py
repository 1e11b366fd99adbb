"""Choosing what is offered, and verifying: what they change on disk and in the registry, and what never."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import training_runs
from damage import flip, remove
from kept_checkpoints import EVERY_2, Program, events, offered, rows
from training_runs import RUN, attempts, lora

from mlxops.layout import adapter_name, state_name
from mlxops.training import lock

pytestmark = pytest.mark.slow


# what is offered -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["best", "last", "4"])
def test_the_chosen_checkpoint_is_offered_as_a_copy_and_recorded(
    mlxops: Program, project: Path, folder: Path, which: str
) -> None:
    known = rows(project)
    best = next(iteration for iteration, row in known.items() if row["is_best"])
    expected = {"best": best, "last": max(known), "4": 4}[which]

    code, out, _ = mlxops(f"checkpoints --use {which} --run run")

    assert code == 0
    assert f"run offers iteration {expected}" in out
    assert (folder / "adapters.safetensors").read_bytes() == (folder / adapter_name(expected)).read_bytes()
    assert (folder / "adapters.safetensors").stat().st_nlink == 1
    assert offered(project) == expected
    assert [event["iteration"] for event in events(project, "offered")] == [expected]


@pytest.mark.parametrize("which", ["run:4", "ru:4", "latest:4", "1:4"])
def test_a_checkpoint_is_offered_by_the_name_of_its_run(mlxops: Program, project: Path, which: str) -> None:
    code, out, err = mlxops(f"checkpoints --use {which}")

    assert (code, offered(project)) == (0, 4), err
    assert "run offers iteration 4" in out


def test_going_on_never_reads_what_is_offered_and_then_offers_its_own(
    mlxops: Program, project: Path, folder: Path, tiny_model: Path
) -> None:
    mlxops("checkpoints --use 2 --run run")
    flip("adapters.safetensors", folder)

    lora(project, *RUN, *EVERY_2)

    training_runs.assert_exact(project, training_runs.straight(tiny_model, *RUN, *EVERY_2))
    assert offered(project) == 13


def test_a_run_at_work_keeps_what_it_offers(mlxops: Program, project: Path, folder: Path) -> None:
    before = offered(project), (folder / "adapters.safetensors").read_bytes()

    with lock.hold(folder / lock.NAME, {"pid": 1, "host": "here", "since": "now"}, what="the run"):
        code, _, err = mlxops("checkpoints --use 2 --run run")

    assert (code, "the run 'run' is being worked on by process 1 on here" in err) == (3, True)
    assert (offered(project), (folder / "adapters.safetensors").read_bytes()) == before


@pytest.mark.parametrize("damage", [flip, remove])
def test_damaged_weights_are_not_offered(
    mlxops: Program, project: Path, folder: Path, damage: Callable[[str, Path], None]
) -> None:
    damage(adapter_name(4), folder)
    before = (folder / "adapters.safetensors").read_bytes()

    code, _, err = mlxops("checkpoints --use 4 --run run")

    assert (code, adapter_name(4) in err) == (3, True)
    assert (folder / "adapters.safetensors").read_bytes() == before


def test_pruned_weights_are_not_offered(mlxops: Program, project: Path) -> None:
    mlxops("checkpoints --prune --yes")

    code, _, err = mlxops("checkpoints --use 2 --run run")

    assert (code, "the checkpoint at iteration 2 of the run 'run' is pruned" in err) == (2, True)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("checkpoints --use best", "--use needs the run"),
        ("checkpoints --use run:newest", "'run:newest' names no checkpoint"),
        ("checkpoints --use newest --run run", "--use takes best, last or an iteration, not 'newest'"),
        ("checkpoints --use 3 --run run", "the run 'run' has no checkpoint at iteration 3"),
        ("checkpoints --use best --run rnu", "no run 'rnu'"),
        ("checkpoints --use best --verify --run run", "--use and --verify are two things"),
        ("checkpoints --keep-last 2", "--keep-last says what --prune keeps"),
        ("checkpoints --path nowhere", "there is no folder 'nowhere'"),
        ("checkpoints --path runs.db", "'runs.db' is a file"),
        ("debug-checkpoints nowhere", "there is no folder 'nowhere'"),
    ],
)
def test_a_wrong_request_is_a_sentence(mlxops: Program, project: Path, command: str, sentence: str) -> None:
    code, out, err = mlxops(command)

    assert (code, out) == (2, "")
    assert sentence in err


# verifying -----------------------------------------------------------------------------------------------------------


def test_whole_checkpoints_are_verified_and_marked(mlxops: Program, project: Path) -> None:
    code, out, _ = mlxops("checkpoints --verify")

    assert (code, f"{len(rows(project))} whole" in out) == (0, True)
    assert all(row["verified_at"] for row in rows(project).values())


@pytest.mark.parametrize("name", [adapter_name(10), state_name(10)])
@pytest.mark.parametrize(("damage", "status"), [(flip, "corrupt"), (remove, "missing")])
def test_damage_is_found_marked_and_its_consequence_comes_true(
    mlxops: Program, project: Path, folder: Path, damage: Callable[[str, Path], None], status: str, name: str
) -> None:
    damage(name, folder)

    code, out, err = mlxops("checkpoints --verify")
    lora(project, *RUN, *EVERY_2)

    assert (code, "1 of 6 checkpoints cannot be used" in err) == (1, True)
    assert f"run 10: {'damaged' if status == 'corrupt' else 'missing'}" in out
    assert "run: a resume would take iteration 8, since 10 is" in out
    assert attempts(project, "run")[-1]["from_iteration"] == 8


def test_what_a_resume_has_set_aside_is_damage_no_more(mlxops: Program, project: Path, folder: Path) -> None:
    flip(adapter_name(10), folder)
    mlxops("checkpoints --verify")
    lora(project, *RUN, "--iters", "10", *EVERY_2)

    code, _, _ = mlxops("checkpoints --verify")

    assert ((folder / f"{adapter_name(10)}.corrupt").exists(), code) == (True, 0)


def test_damage_is_marked_and_what_is_whole_again_is_whole_again(mlxops: Program, project: Path, folder: Path) -> None:
    flip(adapter_name(4), folder)
    mlxops("checkpoints --verify")
    marked = rows(project)[4]["status"]

    flip(adapter_name(4), folder)
    code, _, _ = mlxops("checkpoints --verify")

    assert (marked, code, rows(project)[4]["status"]) == ("corrupt", 0, "whole")


def test_what_has_no_row_is_verified_by_what_the_files_say(mlxops: Program, project: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, project / "copy"))
    flip(state_name(4), copy)

    code, out, _ = mlxops("checkpoints --verify --path copy")

    assert code == 1
    assert f"run 4: damaged, {state_name(4)} is not what was written (SHA-256)" in out
    assert "5 whole, 1 damaged" in out


def test_weights_of_other_programs_are_read_and_said_to_be_beyond_comparing(
    mlxops: Program, project: Path, folder: Path
) -> None:
    (project / "other").mkdir()
    shutil.copy(folder / adapter_name(4), project / "other")

    code, out, _ = mlxops("checkpoints --verify --path other")

    assert (code, "1 not comparable" in out) == (0, True)
