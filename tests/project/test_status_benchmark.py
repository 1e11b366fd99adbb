"""The short form of `benchmarks/status.py`: the live screen of a filled project in a terminal of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import monitor
import status as benchmark


@pytest.mark.slow
def test_what_the_live_screen_takes_is_a_share_of_one_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor.filling, "RUNS", 20)
    for pause in ("SETTLING", "PAUSE"):
        monkeypatch.setattr(benchmark, pause, 0.0)
    monitor.fill(tmp_path / "runs.db", 20_000)

    # the system counts in hundredths of a second
    assert 0 <= benchmark.watched(tmp_path / "runs.db", 0.1, 0.5) < 200
