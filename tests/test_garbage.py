"""How often Python looks for garbage: rarely while a command starts, as before once a model is there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run_python

from mlxops.garbage import collect_as_usual, collect_rarely
from mlxops.models.loading import load_model
from mlxops.models.tiny import make_tiny

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def test_garbage_is_looked_for_rarely_until_the_block_ends() -> None:
    with collect_rarely(20_000):
        inside = gc.get_threshold()

    assert (inside, gc.get_threshold()) == ((20_000, 10, 10), USUAL)


def test_as_usual_is_as_before_the_outermost_block() -> None:
    with collect_rarely(20_000), collect_rarely(100_000):
        collect_as_usual()
        inside = gc.get_threshold()

    assert (inside, gc.get_threshold()) == (USUAL, USUAL)


def test_a_block_after_that_ends_as_usual() -> None:
    with collect_rarely(20_000):
        collect_as_usual()
        with collect_rarely(100_000):
            inside = gc.get_threshold()
        after = gc.get_threshold()

    assert (inside[0], after) == (100_000, USUAL)


@pytest.mark.parametrize("own", [(0, 10, 10), (50_000, 5, 5)])
def test_what_looks_even_less_often_is_left_as_it_is(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with collect_rarely(20_000):
        assert gc.get_threshold() == own

    collect_as_usual()
    assert gc.get_threshold() == own


def test_a_failure_leaves_the_thresholds_as_they_were() -> None:
    with pytest.raises(ValueError, match="no"), collect_rarely(20_000):
        raise ValueError("no")

    assert gc.get_threshold() == USUAL


def test_what_is_there_before_the_first_model_is_not_looked_at_again() -> None:
    source = """
import gc
from mlxops.garbage import collect_as_usual, collect_rarely

begun = gc.get_freeze_count()
collect_as_usual()
print(gc.get_freeze_count() <= begun)
with collect_rarely(20_000):
    collect_as_usual()
    first, kept = gc.get_freeze_count(), [[] for _ in range(5_000)]
    collect_as_usual()
print(first > begun + 1_000, gc.get_freeze_count() <= first)
"""

    assert run_python("-c", source)[:2] == (0, "True\nTrue True\n")


def test_a_loaded_model_is_watched_as_before_the_command(tmp_path: Path) -> None:
    with collect_rarely(20_000):
        load_model(make_tiny(tmp_path / "tiny", layers=1), lazy=True)

        assert gc.get_threshold() == USUAL
