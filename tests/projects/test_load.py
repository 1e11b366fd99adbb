"""The load of the machine: a difference between two looks at the processors."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from mlxops.projects.load import LoadSampler


class Times(NamedTuple):
    """Seconds of all processors, as Linux counts them: those of guests are among those of users."""

    user: float
    idle: float
    iowait: float = 0.0
    guest: float = 0.0


def test_a_load_is_the_share_of_the_processors_since_the_look_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [Times(100, 100), Times(103, 101), Times(103, 105, 1.0), Times(113, 105, 1.0, 10), Times(113, 105, 1.0, 10)]
    monkeypatch.setattr(psutil, "cpu_times", iter(looks).__next__)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    sampler = LoadSampler(tmp_path)

    assert [sampler.sample().cpu_percent for _ in looks[1:]] == [75.0, 0.0, 100.0, 100.0]


def test_a_first_look_waits_only_for_what_is_missing_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=iter([10.0, 10.15, 10.15]).__next__, sleep=waited.append)
    monkeypatch.setattr("mlxops.projects.load.time", clock)

    sampler = LoadSampler(tmp_path)
    sampler.sample()
    sampler.sample()

    assert waited == [pytest.approx(0.05)]
