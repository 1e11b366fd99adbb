"""Monitors know of each other, so that together they take no more than their share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxops.jobs.train.seats import Seats


def test_monitors_know_how_many_they_are(tmp_path: Path) -> None:
    one, other, alone = Seats(tmp_path / "seats"), Seats(tmp_path / "seats"), Seats(tmp_path / "others")
    for seats in (one, other, alone):
        seats.take()
    both = one.count(), other.count(), alone.count()
    other.leave()

    assert (both, one.count()) == ((2, 2, 1), 1)
    one.leave()
    alone.leave()


@pytest.mark.parametrize("place", ["file/seats", None])
def test_where_no_file_can_be_made_a_monitor_is_alone(tmp_path: Path, place: str | None) -> None:
    (tmp_path / "file").touch()
    seats = Seats(tmp_path / place if place else None)
    seats.take()

    assert seats.count() == 1
