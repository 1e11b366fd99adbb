"""Pruning: what goes from the disk and what its rows say, what stays, and kills in the middle of it."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest
import training_runs
from damage import flip
from kept_checkpoints import EVERY_2, Program, events, on_disk, rows
from ready_programs import run_forked
from training_runs import RUN, attempts, lora

from mlxops import registry
from mlxops.files import sha256
from mlxops.layout import adapter_name, state_name
from mlxops.training import lock

pytestmark = pytest.mark.slow


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

    assert (code, bool(re.search("the states? of checkpoints? 4.*, whose weights stay", out))) == (0, True)
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
