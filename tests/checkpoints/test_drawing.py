"""Drawings of checkpoints: of nothing, of one, of more than fits, and of names that would steer a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from mlxops.jobs.checkpoints.listing import CheckpointFolder, ListedCheckpoint, Listing
from mlxops.jobs.checkpoints.prune import Going
from mlxops.ui.checkpoints import explain, listing
from mlxops.ui.terminal import console

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def item(iteration: int | None, **changed: Any) -> ListedCheckpoint:
    known = {
        "iteration": iteration,
        "file": f"{iteration or 0:07d}_adapters.safetensors",
        "state": "whole",
        "bytes": 12_300_000,
        "created_at": "2026-11-22T11:58:00.000Z",
        "train_loss": 2.25,
        "validation_loss": 2.5,
        "is_best": False,
        "is_offered": False,
        "is_next": False,
        "problem": None,
    }
    return ListedCheckpoint(**{**known, **changed})


def group(*items: ListedCheckpoint, **changed: Any) -> CheckpointFolder:
    known = {
        "run": "a-run",
        "folder": "adapters/a-run",
        "kind": "run",
        "status": "interrupted",
        "iteration": 200,
        "target": 1000,
        "items": items,
        "next": "a resume resumes from 200, the newest",
        "seconds_kept": 60.0,
        "seconds_left": 240.0,
        "problem": None,
    }
    return CheckpointFolder(**{**known, **changed})


def drawn(*groups: CheckpointFolder, width: int = 80, show_all: bool = False, unreadable: tuple[str, ...] = ()) -> str:
    stream = io.StringIO()
    found = Listing(groups=groups, unreadable=unreadable)
    listing.listing(found, console.make(file=stream, width=width), NOW, show_all=show_all)
    return stream.getvalue()


def test_no_checkpoints_say_what_makes_them() -> None:
    assert drawn() == "no checkpoints yet: `inv lora --model MODEL --data DATA` makes them\n"


def test_one_checkpoint_is_a_block() -> None:
    assert drawn(group(item(200, is_best=True, is_next=True))).splitlines() == [
        "a-run  interrupted  200 of 1,000  adapters/a-run",
        "iter    at     size       age  train  valid  state",
        " 200  20 %  12.3 MB  2 m 00 s  2.250  2.500  whole  best next",
        "  a resume resumes from 200, the newest; 1 m 00 s of work is kept, about 4 m 00 s is left",
    ]


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_rows_of_long_values_fit_the_terminal(width: int) -> None:
    wide = item(1_000_000, state="weights only", bytes=999_900_000, is_best=True, is_offered=True, is_next=True)

    out = drawn(group(wide, target=1_000_000), width=width)

    (row,) = [line for line in out.splitlines() if "weights only" in line]
    assert len(row) <= width
    assert row.endswith("best offered next")


def test_what_is_wrong_with_a_checkpoint_stands_below() -> None:
    out = drawn(group(item(200, state="damaged", problem="its files have 3 bytes instead of 9")))

    assert "  0000200_adapters.safetensors: its files have 3 bytes instead of 9" in out.splitlines()


def test_pruned_ones_and_empty_runs_are_shown_where_all_are_asked_for() -> None:
    groups = [group(item(100, state="pruned"), item(200)), group(run="empty")]

    assert "pruned" not in drawn(*groups)
    assert "empty" not in drawn(*groups)
    assert "pruned" in drawn(*groups, show_all=True)
    assert "empty" in drawn(*groups, show_all=True)


def test_a_file_without_an_iteration_is_the_final_one() -> None:
    other = group(item(None, train_loss=None), run=None, kind="adapter", status=None, target=None, seconds_kept=None)

    assert drawn(other).splitlines()[0] == "adapters/a-run  made elsewhere"
    assert drawn(other).splitlines()[2].startswith("final")


def test_a_name_cannot_steer_the_terminal() -> None:
    out = drawn(group(item(200), run="\x1b[2Jred", folder="a\nb"), unreadable=("\x07bell is gone",))

    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\\x1b[2Jred" in out


def test_pruning_of_nothing_says_so() -> None:
    stream = io.StringIO()

    listing.pruning([], console.make(file=stream), is_done=False)

    assert stream.getvalue() == "nothing would be deleted\n"


def test_many_iterations_that_go_are_counted() -> None:
    going = Going(run="r", folder="f", states=tuple(range(20)), adapters=tuple(range(20)), bytes=1000)
    stream = io.StringIO()

    listing.pruning([going], console.make(file=stream), is_done=False)

    assert stream.getvalue().splitlines() == [
        "r: checkpoints 0, 1, 2, 3, 4, 5, 6, 7 and 12 more: 1.0 kB",
        "1.0 kB would be freed",
    ]


def test_no_folders_explained_say_what_makes_one() -> None:
    stream = io.StringIO()

    explain.explanations([], console.make(file=stream))

    assert stream.getvalue() == "no adapter folder here: `inv lora --model MODEL --data DATA` makes one\n"
