"""The short form of `benchmarks/monitor.py`: frames over a filled registry, and monitors in terminals of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import monitor as benchmark


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(benchmark.filling, "RUNS", 20)
    # two monitors and half a second show that it measures; how much they take is for the benchmark itself
    for name, value in (("MONITORS", 2), ("STEP", 0.02), ("HALF", 0.5)):
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "runs.db"
    benchmark.fill(path, 20_000)
    return path


def test_frames_are_timed_over_a_registry_that_grows(filled: Path) -> None:
    first, times, busy = benchmark.frames(filled, 80, 24, 3)

    assert first > 0
    assert (len(times), len(busy)) == (3, 3)
    assert min(times) > 0


@pytest.mark.slow
def test_steps_are_timed_with_monitors_and_without(filled: Path) -> None:
    ratios, recording = benchmark.watched(filled, 1, 1)

    assert len(ratios) == 1
    assert min(recording) > 0


@pytest.mark.slow
def test_what_monitors_take_is_a_share_of_all_processors(filled: Path) -> None:
    # the system counts in hundredths of a second, and five may take less than one in a second
    assert 0 <= benchmark.taken_by_monitors(filled, 1, 1) < 100


def test_the_interval_of_a_median_lies_around_it() -> None:
    assert benchmark.interval([float(value) for value in range(101)]) == (40.0, 60.0)
