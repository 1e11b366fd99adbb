"""Choosing what is offered, verifying and pruning: what they change on disk and in the registry, and what never."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from commands import Ended
from damage import flip, remove
from ready_programs import run_forked
from training_runs import RUN, STEP, attempts, lora

from mlxops import registry
from mlxops.files import sha256
from mlxops.layout import adapter_name, state_name
from mlxops.training import lock

pytestmark = pytest.mark.slow

Program = Callable[..., Ended]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a run of 13, with a checkpoint every 2 iterations, that was killed in step 12."""
    project = training_runs.make_project(tmp_path_factory.mktemp("killed") / "project", tiny_model)
    ended = lora(project, *RUN, *EVERY_2, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 12))
    assert ended.code == -signal.SIGKILL
    return project


EVERY_2 = ("--save-every", "2")


@pytest.fixture
def project(tmp_path: Path, killed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, which is the current folder."""
    copy = Path(shutil.copytree(killed, tmp_path / "project", symlinks=True))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def folder(project: Path) -> Path:
    """The run's folder."""
    return project / "adapters" / "run"


def rows(project: Path) -> dict[int, dict[str, Any]]:
    """The checkpoints of the run by iteration."""
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        return {row["iteration"]: row for row in registry.checkpoints_of(db, run["id"])}


def offered(project: Path) -> int | None:
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        rows = registry.checkpoints_of(db, run["id"])
    return next((row["iteration"] for row in rows if row["id"] == run["offered_checkpoint_id"]), None)


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("0*"))


def events(project: Path, kind: str) -> list[dict[str, Any]]:
    with registry.open_read_only(project / "runs.db") as db:
        every = registry.events_of(db, registry.find_run(db, "run")["id"])
    return [event for event in every if event["kind"] == kind]


def branch_at(project: Path, iteration: int) -> None:
    """A child of the run that left it there, as a branch's row has it."""
    with registry.open_registry(project / "runs.db") as db:
        parent = registry.find_run(db, "run")
        same = ("kind", "fingerprint", "model", "model_identity", "data", "data_identity", "config")
        registry.create_run(
            db,
            name="child",
            **{name: parent[name] for name in same},
            target_iterations=13,
            adapter_path=None,
            parent_id=parent["id"],
            branch_iteration=iteration,
        )


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


# pruning -------------------------------------------------------------------------------------------------------------


def test_without_yes_nothing_is_removed_where_nobody_can_be_asked(mlxops: Program, project: Path, folder: Path) -> None:
    before = training_runs.contents(folder), rows(project)

    code, _, err = mlxops("checkpoints --prune")

    assert code == 3
    assert "would be freed" in err
    assert "add `--yes`" in err
    assert (training_runs.contents(folder), rows(project)) == before


def test_pruning_leaves_the_best_and_the_newest_and_their_rows(mlxops: Program, project: Path, folder: Path) -> None:
    known = rows(project)
    stay = {max(known), next(iteration for iteration, row in known.items() if row["is_best"])}
    size = sum(path.stat().st_size for path in folder.glob("0*") if int(path.name[:7]) not in stay)

    code, out, _ = mlxops("checkpoints --prune --yes --json")

    assert code == 0
    assert json.loads(out)[0]["bytes"] == size
    assert {iteration for iteration, row in rows(project).items() if row["status"] == "whole"} == stay
    assert {int(name[:7]) for name in on_disk(folder)} == stay
    assert len(events(project, "pruned")) == 1


def test_a_pruned_run_goes_on_exactly(mlxops: Program, project: Path, tiny_model: Path) -> None:
    mlxops("checkpoints --prune --yes")

    lora(project, *RUN, *EVERY_2)
    got, expected = training_runs.result(project, "run"), training_runs.straight(tiny_model, *RUN, *EVERY_2)

    assert [got[part] for part in ("last", "metrics", "run")] == [expected[part] for part in ("last", "metrics", "run")]


def test_a_branch_point_stays(mlxops: Program, project: Path, folder: Path) -> None:
    branch_at(project, 4)

    mlxops("checkpoints --prune --yes --run run")

    assert {adapter_name(4), state_name(4)} <= set(on_disk(folder))


def test_keep_every_keeps_weights_and_says_that_their_state_goes(mlxops: Program, project: Path, folder: Path) -> None:
    code, out, _ = mlxops("checkpoints --prune --keep-every 4 --yes")

    assert (code, "states alone, whose weights stay, 4" in out) == (0, True)
    assert (adapter_name(4) in on_disk(folder), state_name(4) in on_disk(folder)) == (True, False)
    assert (rows(project)[4]["status"], rows(project)[4]["bytes"]) == (
        "whole",
        (folder / adapter_name(4)).stat().st_size,
    )
    assert rows(project)[4]["state_pruned_at"]


def test_a_damaged_newest_is_not_counted_on(mlxops: Program, project: Path, folder: Path) -> None:
    flip(state_name(10), folder)

    code, out, _ = mlxops("checkpoints --prune --yes")
    lora(project, *RUN, *EVERY_2)

    assert code == 0
    assert f"counts on nothing damaged; iteration 10: {state_name(10)} is not what was written" in out
    assert attempts(project, "run")[-1]["from_iteration"] == 8


def test_a_run_at_work_is_left_out_and_named(mlxops: Program, project: Path, folder: Path) -> None:
    before = on_disk(folder)

    with lock.hold(folder / lock.NAME, {}, what="the run"):
        code, out, _ = mlxops("checkpoints --prune --yes")

    assert (code, "run: left out, a process is at work on it" in out) == (0, True)
    assert on_disk(folder) == before


def test_leftovers_of_kills_and_damaged_files_set_aside_go_too(mlxops: Program, project: Path, folder: Path) -> None:
    (folder / ".adapters.safetensors.partial.safetensors").write_bytes(b"half")
    (folder / f"{state_name(4)}.corrupt").write_bytes(b"damaged")
    (folder / f"{state_name(4)}.corrupt.2").write_bytes(b"damaged again")

    _, _, asked = mlxops("checkpoints --prune --keep-last 99")
    code, _, _ = mlxops("checkpoints --prune --keep-last 99 --yes")

    assert f"damaged ones set aside: {state_name(4)}.corrupt" in asked
    assert (code, sorted(folder.glob("*.corrupt*")), sorted(folder.glob(".*partial*"))) == (0, [], [])
    assert len(on_disk(folder)) == 12


def test_nothing_to_remove_is_no_refusal(mlxops: Program, project: Path) -> None:
    code, out, _ = mlxops("checkpoints --prune --keep-last 99")

    assert (code, out) == (0, "nothing was removed\n")


_KILLED_WHILE_PRUNING = """
import os, signal, sys, training_runs
from mlxops.__main__ import program
training_runs.act_before(sys.argv.pop(1), lambda: os.kill(os.getpid(), signal.SIGKILL), call=int(sys.argv.pop(1)))
sys.argv = ["mlx-toolkit", "checkpoints", "--prune", "--yes"]
program.run()
"""


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("mlxops.registry:mark_pruned", 1),
        ("mlxops.training.checkpoints:remove", 1),
        *(("pathlib:Path.unlink", call) for call in range(1, 9)),
    ],
)
def test_a_kill_while_pruning_leaves_no_row_that_promises_what_is_gone(
    mlxops: Program, project: Path, folder: Path, place: str, call: int
) -> None:
    code, _, _ = run_forked("-c", _KILLED_WHILE_PRUNING, place, str(call))

    promised = [row for row in rows(project).values() if row["status"] == "whole"]
    assert code == -signal.SIGKILL
    for row in promised:
        assert sha256(folder / row["adapter_file"]) == row["adapter_sha256"]
        assert row["state_pruned_at"] or sha256(folder / row["state_file"]) == row["state_sha256"]

    again, _, _ = mlxops("checkpoints --prune --yes")
    assert again == 0
    assert {int(name[:7]) for name in on_disk(folder)} == {
        iteration for iteration, row in rows(project).items() if row["status"] == "whole"
    }


@pytest.mark.skipif(sys.platform != "linux", reason="giving up root's rights is Linux's")
def test_a_folder_that_cannot_be_written_is_a_sentence(project: Path, folder: Path) -> None:
    program = """
import sys, training_runs
from mlxops.__main__ import program
training_runs.obey_permissions()
sys.argv = ["mlx-toolkit", "checkpoints", "--prune", "--yes"]
program.run()
"""
    before = on_disk(folder)
    (folder / ".lock").chmod(0o444)
    folder.chmod(0o555)

    code, _, err = run_forked("-c", program)
    folder.chmod(0o755)

    assert (code, "this is a bug" in err, str(folder) in err) == (1, False, True)
    assert on_disk(folder) == before
