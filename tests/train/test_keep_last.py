"""While a run trains, only the last few checkpoints stay, and never at the cost of one that is still needed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from training_runs import STEP, attempts, copy_project, lora, straight, straight_project

from mlxops import registry

pytestmark = pytest.mark.slow

SAVING = (*training_runs.RUN, "--save-every", "1")
"""A checkpoint each iteration; the lowest validation loss is at iteration 10."""

KEEPING = (*SAVING, "--keep-last", "2")


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


def checkpoints_of(project: Path) -> dict[int, str]:
    """What the registry says of each checkpoint."""
    with registry.open_read_only(project / "runs.db") as db:
        rows = registry.checkpoints_of(db, registry.find_run(db, "run")["id"])
    return {row["iteration"]: row["status"] for row in rows}


def events(project: Path, kind: str) -> list[dict[str, Any]]:
    with registry.open_read_only(project / "runs.db") as db:
        found = registry.events_of(db, registry.find_run(db, "run")["id"])
    return [each for each in found if each["kind"] == kind]


def on_disk(project: Path, what: str = "state") -> list[int]:
    """The iterations of which there is a file."""
    found = (project / "adapters" / "run").glob(f"*[0-9]_{what}*.safetensors")
    return sorted(int(path.name.split("_")[0]) for path in found)


def whole(project: Path) -> list[int]:
    return [iteration for iteration, status in checkpoints_of(project).items() if status == "whole"]


@pytest.fixture
def kept(tiny_model: Path, tmp_path: Path) -> Path:
    """A project whose run kept the last few and was never interrupted."""
    return copy_project(straight_project(tiny_model, *KEEPING), tmp_path / "kept")


def test_the_last_few_and_the_best_are_kept(kept: Path) -> None:
    assert on_disk(kept, "state") == on_disk(kept, "adapters") == whole(kept) == [10, 12, 13]
    assert checkpoints_of(kept) == {each: "whole" if each in (10, 12, 13) else "pruned" for each in range(1, 14)}


def test_what_was_freed_is_said_and_recorded(kept: Path, tiny_model: Path) -> None:
    freed = events(kept, "pruned")
    with registry.open_read_only(kept / "runs.db") as db:
        (gone,) = db.rows("SELECT sum(bytes) AS bytes FROM checkpoints WHERE status = 'pruned'")
    assert sum(each["detail"]["bytes"] for each in freed) == gone["bytes"]
    assert [each["detail"]["iterations"] for each in freed][:2] == [[1], [2]]
    assert straight_project(tiny_model, *KEEPING).with_name("said").read_text().count(" freed by --keep-last 2") == len(
        freed
    )


def test_pruning_trains_the_same_weights_and_says_the_same(kept: Path, tiny_model: Path) -> None:
    got, expected = training_runs.result(kept, "run"), straight(tiny_model, *SAVING)

    for row in [*got["checkpoints"], *expected["checkpoints"]]:
        assert row.pop("status") in ("whole", "pruned")
    assert got == expected


def kill_again_and_again(project: Path, *kills: Callable[[], None]) -> Iterator[int]:
    """Give the command with each of these kills, every time from where the one before has left it.

    Gives where the newest checkpoint is after each, which is when the caller looks at what is left.
    """
    for kill in kills:
        killed = lora(project, *KEEPING, first=kill)
        assert killed.code == -signal.SIGKILL, killed.said
        yield training_runs.newest_checkpoint(project, "run")


def assert_completes_as(kept: Path, project: Path) -> None:
    """Hold that the command, given once more, leaves the files and rows of the run that was never interrupted."""
    ended = lora(project, *KEEPING)
    assert ended.code == 0, ended.said
    assert training_runs.result(project, "run") == training_runs.result(kept, "run")
    assert on_disk(project) == on_disk(project, "adapters") == [10, 12, 13]


def test_a_run_killed_in_the_writer_ends_with_the_files_and_rows_of_a_straight_one(project: Path, kept: Path) -> None:
    # as the row of one is written and nothing is removed yet, within one and then deeper within, before the last row
    instants = (2 * 29, 29 + 2, 4 * 29 + 2, 6 * 29 - 1)

    kills = (partial(training_runs.die_in_the_writer, instant) for instant in instants)
    newest = list(kill_again_and_again(project, *kills))

    assert newest == [2, 3, 7, 13]
    assert_completes_as(kept, project)


def test_a_run_killed_while_it_prunes_ends_with_the_files_and_rows_of_a_straight_one(project: Path, kept: Path) -> None:
    rows, files = "mlxops.registry:mark_pruned", "mlxops.training.checkpoints:remove"
    kill = partial(training_runs.signal_itself, signal.SIGKILL)

    places = ((rows, 1), (files, 1), (rows, 5), (files, 2))
    for _ in kill_again_and_again(project, *(partial(kill, *place) for place in places)):
        assert set(whole(project)) <= set(on_disk(project, "state")) & set(on_disk(project, "adapters"))

    assert_completes_as(kept, project)


def test_a_kill_between_two_removals_leaves_no_row_that_promises_what_is_gone(project: Path, kept: Path) -> None:
    for _ in kill_again_and_again(project, *(partial(_die_between_removals, call) for call in (3, 4, 3))):
        assert set(whole(project)) <= set(on_disk(project, "state")) & set(on_disk(project, "adapters"))
        # states go first
        assert set(on_disk(project, "state")) <= set(on_disk(project, "adapters"))

    assert_completes_as(kept, project)


def _die_between_removals(call: int) -> None:
    training_runs.act_before(
        "mlxops.training.checkpoints:remove",
        lambda: training_runs.act_before("pathlib:Path.unlink", partial(os.kill, os.getpid(), signal.SIGKILL), call=2),
        call=call,
    )


def test_a_run_that_keeps_one_checkpoint_goes_on_exactly(project: Path, tiny_model: Path) -> None:
    options = (*training_runs.RUN, "--save-every", "2", "--keep-last", "1")
    stop, kill = (
        partial(training_runs.signal_before, signal.SIGTERM),
        partial(training_runs.signal_itself, signal.SIGKILL),
    )
    # stopped and killed before there is a lowest loss to keep, and after it
    for act, step in ((stop, 3), (kill, 2), (stop, 6), (kill, 3)):
        ended = lora(project, *options, first=partial(act, STEP, step))
        assert ended.code == (128 + signal.SIGTERM if act is stop else -signal.SIGKILL), ended.said
        assert len(set(on_disk(project)) - {5, 10}) <= 1

    lora(project, *options)

    got, expected = training_runs.result(project, "run"), straight(tiny_model, *options)
    assert [got[part] for part in ("last", "offered", "run", "metrics")] == [
        expected[part] for part in ("last", "offered", "run", "metrics")
    ]
    assert on_disk(project) == [10, 13]


def test_a_run_that_goes_on_with_another_number_obeys_it(project: Path) -> None:
    lora(project, *SAVING, first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 6))
    assert on_disk(project) == [1, 2, 3, 4, 5, 6]

    lora(project, *SAVING, "--keep-last", "3", first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 3))
    assert on_disk(project) == [5, 7, 8, 9]

    lora(project, *SAVING, "--keep-last", "1")
    assert on_disk(project) == [10, 13]


def test_a_checkpoint_that_a_run_branches_from_is_kept(project: Path) -> None:
    lora(project, *SAVING, first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 6))
    with registry.open_registry(project / "runs.db") as db:
        parent = registry.find_run(db, "run")
        registry.create_run(
            db,
            name="child",
            kind="lora",
            fingerprint="another",
            model=parent["model"],
            model_identity=parent["model_identity"],
            data=parent["data"],
            data_identity=parent["data_identity"],
            config=parent["config"],
            target_iterations=20,
            adapter_path=None,
            parent_id=parent["id"],
            branch_iteration=3,
        )

    lora(project, *SAVING, "--keep-last", "1")

    assert on_disk(project) == on_disk(project, "adapters") == [3, 10, 13]


def test_a_damaged_newest_checkpoint_leaves_the_one_before_it_to_go_on_from(project: Path) -> None:
    lora(project, *KEEPING, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 9))
    newest = project / "adapters" / "run" / "0000008_state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])

    ended = lora(project, *KEEPING)

    assert ended.code == 0
    assert attempts(project, "run")[-1]["from_iteration"] == 7
    assert on_disk(project) == [10, 12, 13]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs files of another owner")
def test_a_file_that_cannot_be_removed_is_said_once_and_tried_again(project: Path) -> None:
    lora(project, *SAVING, first=partial(training_runs.signal_before, signal.SIGTERM, STEP, 3))
    folder = project / "adapters" / "run"
    # in a sticky folder, a file goes only by the hand of its owner or the folder's
    kept = folder / "0000001_state.safetensors"
    os.chown(kept, 1, 1)
    os.chown(folder, 1, 1)
    folder.chmod(0o1777)

    refused = lora(project, *KEEPING, first=training_runs.obey_permissions)

    assert refused.code == 0, refused.said
    (said,) = events(project, "not removed")
    assert said["level"] == "warning"
    assert said["message"] == f"{kept.name} cannot be removed and is tried again later: Operation not permitted"
    assert (kept.exists(), checkpoints_of(project)[1]) == (True, "pruned")
    assert whole(project) == [10, 12, 13]

    lora(project, *KEEPING, "--iters", "14")

    assert on_disk(project) == [13, 14]
