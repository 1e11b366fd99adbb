"""The slope of a noisy curve, and the interval that holds it."""

from __future__ import annotations

import random

import pytest

from mlxops.analysis.trend import trend


def test_too_few_points_have_no_trend() -> None:
    assert trend([(at, 1.0) for at in range(7)]) is None


def test_a_straight_line_is_known_exactly() -> None:
    found = trend([(10 * at, 5 - 0.2 * at) for at in range(20)])

    assert found is not None
    assert (found.slope, found.lowest, found.highest) == pytest.approx((-0.02, -0.02, -0.02))
    assert (found.points, found.first_iteration, found.last_iteration) == (20, 0, 190)


def test_a_spike_does_not_turn_the_trend() -> None:
    points = [(at, 5 - 0.1 * at) for at in range(30)]
    points[28] = (28, 1000.0)
    found = trend(points)

    assert found is not None
    assert found.highest < 0


def test_the_interval_holds_the_true_slope_about_as_often_as_it_says() -> None:
    chance = random.Random(0)
    held = 0
    for _ in range(300):
        found = trend([(at, -0.01 * at + chance.gauss(0, 0.3)) for at in range(30)])
        held += found is not None and found.lowest <= -0.01 <= found.highest

    assert 0.92 < held / 300 < 0.99


def test_noise_alone_has_an_interval_around_zero() -> None:
    chance = random.Random(1)
    found = trend([(at, chance.gauss(2, 0.5)) for at in range(60)])

    assert found is not None
    assert found.lowest < 0 < found.highest
