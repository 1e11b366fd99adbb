"""Where the time of a training goes: parts that do not overlap, measured without changing a bit."""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_rows import new_attempt, new_run
from rich.console import Console
from small_trainings import adapter_bytes, row, rows, settings, train_small

from mlxops import registry
from mlxops.events import Profiled
from mlxops.jobs.run.show import RunDetails
from mlxops.registry.entries import Entry, entries_of, write
from mlxops.training import batches
from mlxops.training.profile import Profile
from mlxops.ui.run import show

PARTS = {
    "data", "prefix", "forward and backward", "compilation", "update", "validation", "checkpoint",
    "registry and screen",
}  # fmt: skip


@pytest.mark.slow
def test_a_profile_has_every_part_once_and_changes_no_bit(tiny_model: Path, tmp_path: Path) -> None:
    config = settings(iters=10, num_layers=2)
    plain = train_small(tiny_model, tmp_path / "plain", config, validation_rows=(row(9, 12),))
    begun, profile = time.perf_counter(), Profile()

    heard = train_small(tiny_model, tmp_path / "measured", config, validation_rows=(row(9, 12),), profile=profile)

    assert adapter_bytes(tmp_path / "measured", 10) == adapter_bytes(tmp_path / "plain", 10)
    assert plain.of(Profiled) == []
    parts = heard.of(Profiled)[-1].parts
    assert parts.keys() == PARTS
    assert sum(seconds for seconds, _ in profile.parts.values()) < time.perf_counter() - begun
    shapes = batches.plan(rows(), batch_size=config.batch_size, seed=config.seed).loads
    assert parts["update"][1] == 10
    assert parts["compilation"][1] == len(shapes)


def test_what_a_part_calls_is_counted_there_and_not_in_it() -> None:
    profile = Profile()
    with profile.part("outer"):
        with profile.part("inner"):
            time.perf_counter()
        profile.count("other", 100.0)

    assert [name for name, (seconds, count) in profile.parts.items() if count == 1] == ["inner", "other", "outer"]
    assert profile.parts["other"] == (100.0, 1)
    assert profile.parts["outer"][0] < -99


def test_a_profile_that_is_off_measures_nothing() -> None:
    profile = Profile(on=False)
    with profile.part("outer"):
        profile.count("other", 1.0)

    assert profile.parts == {}


def test_what_an_attempt_measured_takes_the_place_of_what_it_wrote_before(tmp_path: Path) -> None:
    with registry.open_registry(tmp_path / "runs.db") as db:
        run = new_run(db, "heron")
        first, second = new_attempt(db, run.id), new_attempt(db, run.id)
        for attempt, parts in (
            (first, {"update": (1.0, 2)}),
            (first, {"update": (2.0, 4), "data": (1.0, 4)}),
            (second, {"update": (1.0, 1)}),
        ):
            (entry,) = entries_of(Profiled(parts=parts), 0.0)
            write(db, run.id, attempt, Entry.from_json(entry.to_json()))

        found = registry.profile_of(db, run.id)

    assert found == [
        {"part": "update", "seconds": 3.0, "share": 0.75, "times": 5},
        {"part": "data", "seconds": 1.0, "share": 0.25, "times": 4},
    ]


def test_a_run_shows_where_its_time_went(tmp_path: Path) -> None:
    with registry.open_registry(tmp_path / "runs.db") as db:
        run = new_run(db, "heron")
        registry.record_profile(db, run.id, new_attempt(db, run.id), {"update": (90.0, 3), "data": (10.0, 4)})
        details = RunDetails(run=registry.summary_of(db, run.id), profile=registry.profile_of(db, run.id))
        saved = db.rows("SELECT part, count FROM profiles ORDER BY part")
    out = io.StringIO()

    show.run(details, Console(file=out, width=80), datetime.now(UTC))

    text = " ".join(out.getvalue().split())
    assert "part time share times each" in text
    assert "update 1 m 30 s 90 % 3 30,000.0 ms data 10 s 10 % 4 2,500.0 ms" in text
    assert json.dumps(saved) == '[{"part": "data", "count": 4}, {"part": "update", "count": 3}]'
