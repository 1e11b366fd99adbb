"""Points and lines as characters."""

from __future__ import annotations

import math

import pytest

from mlxops.ui.charts import raster
from mlxops.ui.charts.raster import Frame

FRAME = Frame(x_min=0, x_max=4, y_min=0, y_max=4)
NAN = math.nan


@pytest.mark.parametrize(
    ("points", "drawn"),
    [
        ([], ["    ", "    "]),
        ([(2, 3)], ["  . ", "    "]),
        ([(0, 0), (4, 4)], ["  ..", "..  "]),
        ([(0, 4), (4, 0)], ["..  ", "  .."]),
        ([(1, 0), (1, 4)], [" .  ", " .  "]),
        ([(0, 1), (4, 1)], ["    ", "...."]),
        ([(0, 1), (2, NAN), (3, 1)], ["    ", ".  ."]),
        ([(-1000, 1), (1000, 1)], ["    ", "...."]),
        ([(5, 1), (6, 1)], ["    ", "    "]),
    ],
    ids=["nothing", "a point", "rising", "falling", "upright", "flat", "a gap", "through a zoom", "outside"],
)
def test_a_line_joins_its_points_inside_the_frame(points: list[tuple[float, float]], drawn: list[str]) -> None:
    assert raster.marks(points, FRAME, 4, 2, ".", joined=True) == drawn


def test_points_alone_are_not_joined() -> None:
    assert raster.marks([(0, 0), (3.5, 4)], FRAME, 4, 2, "o", joined=False) == ["   o", "o   "]


def test_braille_has_two_by_four_dots_for_each_character() -> None:
    assert raster.braille([(0, 0), (4, 4)], FRAME, 2, 1) == ["⡠⠊"]
    assert raster.braille([(1, 1)], FRAME, 2, 1) == ["⢀ "]


def test_a_logarithmic_scale_has_equal_factors_at_equal_heights() -> None:
    frame = Frame(x_min=0, x_max=3, y_min=1, y_max=1000, is_log=True)

    assert raster.marks([(0, 5), (1, 50), (2, 500)], frame, 3, 3, "o", joined=False) == ["  o", " o ", "o  "]
