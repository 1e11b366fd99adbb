"""Curves in ranges: nothing is hidden, and what is read again is only what has come since."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from empty_registry import open_empty
from history_rows import begin, new_run

from mlxops import registry
from mlxops.registry import Ranges, Registry


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Registry]:
    with open_empty(tmp_path / "runs.db") as opened:
        begin(opened, new_run(opened, "heron"))
        yield opened


def add(db: Registry, first: int, losses: list[float]) -> None:
    """One report an iteration, in bulk where there are many."""
    for iteration, loss in enumerate(losses, first):
        registry.record_report(
            db, 1, 1, iteration=iteration, epoch=1, trained_tokens=0, metrics={"train_loss": loss}
        )  # fmt: skip


def losses(count: int) -> list[float]:
    return [3 + math.sin(number) for number in range(count)]


def test_a_short_curve_is_itself(db: Registry) -> None:
    add(db, 1, [4.0, 3.0])

    assert Ranges(1, "train_loss", 10).read(db) == [
        {"iteration": at, "mean": loss, "low": loss, "low_iteration": at, "high": loss, "high_iteration": at,
         "finite": 1, "count": 1}
        for at, loss in ((1, 4.0), (2, 3.0))
    ]  # fmt: skip


def test_a_curve_that_is_not_there_is_empty(db: Registry) -> None:
    assert Ranges(1, "train_loss", 10).read(db) == []


def test_a_spike_of_one_step_stays_visible(db: Registry) -> None:
    many = losses(3000)
    many[1234] = 99.0
    many[2345] = -99.0
    add(db, 1, many)

    read = Ranges(1, "train_loss", 50).read(db)

    assert len(read) <= 50
    assert [(row["high_iteration"], row["high"]) for row in read if row["high"] > 10] == [(1235, 99.0)]
    assert [(row["low_iteration"], row["low"]) for row in read if row["low"] < -10] == [(2346, -99.0)]


def test_ranges_hold_every_point_and_their_mean(db: Registry) -> None:
    many = losses(1000)
    add(db, 1, many)

    read = Ranges(1, "train_loss", 30).read(db)

    assert sum(row["count"] for row in read) == 1000
    assert sum(row["mean"] * row["finite"] for row in read) == pytest.approx(sum(many))


def test_read_as_it_grows_a_curve_is_the_one_read_at_once(db: Registry) -> None:
    growing = Ranges(1, "train_loss", 20)
    for first in range(1, 500, 37):
        add(db, first, losses(500)[first - 1 : first + 36])
        last = growing.read(db)

    at_once = Ranges(1, "train_loss", 20).read(db)

    assert [pytest.approx(row) for row in at_once] == last


def test_a_zoomed_curve_begins_with_the_range_asked_for(db: Registry) -> None:
    add(db, 1, losses(1000))
    zoomed = Ranges(1, "train_loss", 64)

    assert [row["low_iteration"] for row in zoomed.read(db, 951)] == list(range(951, 1001))
    add(db, 1001, [1.0] * 10)
    assert [row["low_iteration"] for row in zoomed.read(db, 961)] == list(range(961, 1011))


def test_a_zoom_that_goes_back_brings_all_back(db: Registry) -> None:
    add(db, 1, losses(1000))
    zoomed = Ranges(1, "train_loss", 64)
    zoomed.read(db, 951)

    assert zoomed.read(db, 501) == Ranges(1, "train_loss", 64).read(db, 501)


def test_what_was_not_finite_is_counted_and_a_range_of_it_alone_is_a_gap(db: Registry) -> None:
    add(db, 1, [2.0] * 8 + [math.nan] * 8 + [2.0, math.nan] * 4)

    read = Ranges(1, "train_loss", 3).read(db)

    assert sum(row["count"] - row["finite"] for row in read) == 12
    assert [row["mean"] for row in Ranges(1, "train_loss", 100).read(db)][8:16] == [None] * 8


def test_far_apart_points_leave_no_empty_ranges(db: Registry) -> None:
    add(db, 1, [2.0])
    add(db, 1_000_000, [1.0])

    assert [row["count"] for row in Ranges(1, "train_loss", 400).read(db)] == [1, 1]
