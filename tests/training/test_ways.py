"""Each way of computing a step has a version: a run keeps its ways, and a resume by others is not called exact."""

from __future__ import annotations

import pytest

from mlxops.training import ways

BLAS = {"blas_threads": 1, "core_type": "Haswell", "dtype": "float32"}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version with a new way first, a raised version, a way that is gone, and one more part."""
    monkeypatch.setattr(
        ways,
        "WAYS",
        {
            "loss": {"trained positions": 1, "every position": 1},
            "prefix": {"none": 2},
            "compilation": {"layer": 1},
            "loader": {"like length": 1},
            "packing": {"packed": 1, "one row each": 1},
        },
    )
    monkeypatch.setattr(ways, "_BEFORE", {**ways._BEFORE, "packing": "one row each"})


def test_a_new_run_takes_the_first_way_of_each_part(later):
    assert ways.choose({}) == {
        "loss": "trained positions",
        "prefix": "none",
        "compilation": "layer",
        "loader": "like length",
        "packing": "packed",
    }


@pytest.mark.parametrize("stored", [BLAS, {**BLAS, **ways._BEFORE}])
def test_a_run_keeps_its_ways_and_takes_a_new_one_only_where_its_own_is_gone(later, stored):
    assert ways.choose(stored) == {
        "loss": "every position",
        "prefix": "none",
        "compilation": "layer",
        "loader": "like length",
        "packing": "one row each",
    }


def test_what_differs_from_a_checkpoint_is_a_raised_version_or_another_way(later):
    now = ways.versions(ways.choose(BLAS))

    changed = {part for part, was in ways.of_checkpoint(BLAS).items() if now.get(part, was) != was}

    assert changed == {"prefix", "compilation"}


def test_the_environment_of_a_checkpoint_says_more_than_what_is_usual():
    assert ways.of_checkpoint({**BLAS, "loss": "trained positions, version 3"}) == {
        **BLAS,
        "loss": "trained positions, version 3",
        "prefix": "none, version 1",
        "compilation": "step, version 1",
        "loader": "like length, version 1",
        "adafactor": "learning rate times the size of the weights, version 1",
    }


def test_each_part_has_a_way_of_runs_from_before_it_was_recorded():
    assert ways.WAYS.keys() == ways._BEFORE.keys()
