"""What the monitor is given to show: which run, what is told of it, and what can be typed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from history_rows import begin, new_run
from registry_rows import die
from watched_runs import db_run, report, shown

from mlxops import registry
from mlxops.config import MonitorConfig
from mlxops.errors import BadRequest, NotFound
from mlxops.jobs.train.monitor import CURVES, Watch, open_watch
from mlxops.projects.invocation import Invocation
from mlxops.registry import Registry
from mlxops.training import lock
from mlxops.ui.terminal import exact

# which run -----------------------------------------------------------------------------------------------------------


def test_the_newest_run_is_shown_where_none_is_at_work(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        assert shown(watch) == "otter"


def test_the_run_at_work_is_shown_and_stays_when_another_begins(db: Registry, invocation: Invocation) -> None:
    begin(db, db_run(db, "heron"))
    with Watch(invocation) as watch:
        first = shown(watch)
        begin(db, db_run(db, "otter"))
        second = watch.state()

    assert first == "heron"
    assert second is not None
    assert (second.run["name"], second.at_work) == ("heron", ["otter"])


def test_once_its_run_has_ended_the_one_that_begins_is_shown(db: Registry, invocation: Invocation) -> None:
    attempt = begin(db, db_run(db, "heron"))
    with Watch(invocation) as watch:
        watch.state()
        registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=100)
        ended = shown(watch)
        begin(db, db_run(db, "otter"))

        assert (ended, shown(watch)) == ("heron", "otter")


def test_the_keys_go_from_run_to_run_and_round(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        seen = [shown(watch)]
        for _ in range(2):
            watch.switch(1)
            seen.append(shown(watch))

    assert seen == ["otter", "heron", "otter"]


def test_a_named_run_is_shown_and_latest_is_the_newest(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"]) as named, Watch(invocation, ["latest"]) as latest:
        assert (shown(named), shown(latest)) == ("heron", "otter")


def test_a_name_that_is_not_there_names_the_nearest(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["herom"]) as watch, pytest.raises(NotFound) as caught:
        watch.state()

    assert caught.value.hint == "did you mean 'heron'?"


def test_several_named_runs_lie_over_each_other_and_the_keys_go_among_them(
    db: Registry, invocation: Invocation
) -> None:
    new_run(db, "wren")
    with Watch(invocation, ["heron", "otter"]) as watch:
        first = watch.state()
        watch.switch(1)
        second = watch.state()
        watch.switch(1)

        assert shown(watch) == "heron"
    assert first is not None
    assert second is not None
    assert [other.name for other in first.others] == ["otter"]
    assert (second.run["name"], [other.name for other in second.others]) == ("otter", ["heron"])
    assert len(second.others[0].curves["train_loss"]) == 100


def test_too_many_runs_to_tell_apart_are_refused(invocation: Invocation) -> None:
    with pytest.raises(BadRequest, match=r"^9 runs are too many to tell apart$"):
        Watch(invocation, [f"run-{number}" for number in range(9)])


def test_a_run_is_kept_on_the_chart_until_asked_again(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"]) as watch:
        watch.state()
        watch.overlay()
        watch.switch(1)
        kept = watch.state()
        watch.switch(1)
        watch.state()
        watch.overlay()
        watch.switch(1)
        gone = watch.state()

    assert kept is not None
    assert gone is not None
    assert [other.name for other in kept.others] == ["heron"]
    assert gone.others == []


def test_a_run_on_the_chart_keeps_its_letter_while_others_come_and_go(db: Registry, invocation: Invocation) -> None:
    new_run(db, "swift")
    letters = []
    with Watch(invocation, ["otter"]) as watch:
        for move in (watch.overlay, lambda: watch.switch(1), watch.overlay, lambda: watch.switch(1), lambda: None):
            shot = watch.state()
            assert shot is not None
            letters.append({shot.run["name"]: shot.place} | {other.name: other.place for other in shot.others})
            move()

    assert letters == [
        {"otter": 0},
        {"otter": 0},
        {"heron": 1, "otter": 0},
        {"heron": 1, "otter": 0},
        {"swift": 2, "otter": 0, "heron": 1},
    ]


# what it is told ----------------------------------------------------------------------------------------------------


def test_without_a_registry_there_is_nothing_and_nothing_is_made(invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        assert (watch.state(), watch.changed()) == (None, (None, None))
    assert not invocation.project.registry_path.exists()


def test_a_registry_that_is_just_being_made_is_none_yet(invocation: Invocation) -> None:
    invocation.project.registry_path.touch()
    with Watch(invocation) as watch:
        before = watch.state()
        with registry.open_registry(invocation.project.registry_path) as db:
            new_run(db, "heron")

        assert (before, shown(watch)) == (None, "heron")


def test_a_run_in_full(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"]) as watch:
        state = watch.state()

    assert state is not None
    assert set(state.curves) == set(CURVES)
    assert state.run["best_iteration"] == 50
    assert state.best_at is not None
    assert state.trend.highest < 0
    assert state.trend.points == 60
    assert json.loads(exact.json_text(state))["trend"]["points"] == 60


def test_zooming_halves_and_doubles_what_is_shown(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"], 60) as watch:
        first = []
        for step in (None, 1, 1, 1, -1, 0):
            if step is not None:
                watch.zoom(step)
            state = watch.state()
            assert state is not None
            first.append((state.last, state.curves["train_loss"][0]["low_iteration"]))

    assert first == [(60, 41), (30, 71), (15, 86), (10, 91), (20, 81), (None, 1)]


def test_an_attempt_that_goes_back_takes_the_points_beyond_it(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"]) as watch:
        watch.state()
        begin_at(db, 40)
        state = watch.state()

    assert state is not None
    assert state.curves["train_loss"][-1]["high_iteration"] == 40


def begin_at(db: Registry, iteration: int) -> int:
    return registry.start_attempt(
        db, 1, start_kind="exact", from_iteration=iteration, trained_tokens=0, target_iterations=100, device="cpu",
        environment={}, command="",
    )  # fmt: skip


def test_the_process_at_work_is_looked_at_and_one_that_has_ended_is_not(db: Registry, invocation: Invocation) -> None:
    begin(db, db_run(db, "otter"))
    with Watch(invocation) as watch:
        watch.state()
        working = watch.machine()
        watch.switch(1)
        watch.state()
        ended = watch.machine()

    assert working.process_memory > 1e6
    assert ended.process_memory is None
    assert 0 < ended.memory_percent <= 100


def points(state: dict[str, Any] | None, name: str) -> list[int]:
    """The iterations of a run's train loss, shown or laid over."""
    assert state is not None
    runs = {state.run["name"]: state, **{other.name: other for other in state.others}}
    return [row["low_iteration"] for row in runs[name].curves["train_loss"]]


def test_a_zoomed_curve_is_whole_again_when_a_shorter_run_is_shown_again(db: Registry, invocation: Invocation) -> None:
    wren = new_run(db, "wren")
    report(db, wren.id, begin(db, wren), 1, 201)
    with Watch(invocation, ["heron", "wren"], 50) as watch:
        before = points(watch.state(), "wren")
        watch.switch(1)
        watch.state()
        watch.switch(1)
        after = points(watch.state(), "wren")

    assert before == after == list(range(51, 201))


def test_the_curve_of_a_deleted_run_is_not_that_of_the_run_that_gets_its_number(
    db: Registry, invocation: Invocation
) -> None:
    gone = new_run(db, "gone")
    attempt = begin(db, gone)
    report(db, gone.id, attempt, 1, 31)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=30)
    with Watch(invocation) as watch:
        before = points(watch.state(), "gone")
        registry.remove_runs(db, [gone.id])
        wren = new_run(db, "wren")
        report(db, wren.id, begin(db, wren), 1, 4)
        after = watch.state()

    assert (before, points(after, "wren")) == (list(range(1, 31)), [1, 2, 3])
    assert gone.id == wren.id


def test_a_warning_is_marked_however_much_happened_since(db: Registry, invocation: Invocation) -> None:
    registry.add_event(db, 1, None, kind="skipped", message="not finite", level="warning", iteration=5)
    for iteration in range(10, 80):
        registry.add_event(db, 1, None, kind="saved", message="saved", iteration=iteration)
    with Watch(invocation, ["heron"]) as watch:
        state = watch.state()

    assert state is not None
    assert state.warnings == [5]


def test_of_many_warnings_each_column_has_one(db: Registry) -> None:
    for iteration in range(1000):
        registry.add_event(db, 1, None, kind="skipped", message="", level="error", iteration=iteration)

    assert registry.warned_at(db, 1, 100, 999, 9) == list(range(100, 1000, 100))


# through the front door ---------------------------------------------------------------------------------------------


def test_the_options_are_what_is_watched(db: Registry, invocation: Invocation) -> None:
    with open_watch(invocation, MonitorConfig(run=["heron"], last=20)) as watch:
        state = watch.state()

    assert state is not None
    assert (state.run["name"], state.last, state.since) == ("heron", 20, 81)


@pytest.mark.parametrize("command", ["monitor --once", "runs"])
def test_a_folder_in_place_of_the_registry_is_none(
    mlxops: Callable[[str], tuple[int, str, str]], invocation: Invocation, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    invocation.project.registry_path.mkdir()
    monkeypatch.setenv("MLXOPS_DB", str(invocation.project.registry_path))
    code, out, err = mlxops(command)

    assert (code, out) == (2, "")
    assert "there is no registry" in err


@pytest.mark.slow
def test_while_another_process_writes_the_runs_are_listed_though_an_attempt_is_dead(
    mlxops: Callable[[str], tuple[int, str, str]], db: Registry, invocation: Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin(db, db_run(db, "otter"))
    die(db, attempt)
    monkeypatch.setenv("MLXOPS_DB", str(invocation.project.registry_path))
    with db.transaction():
        locked = mlxops("runs")
    released = mlxops("runs --status interrupted")

    assert (locked[0], locked[2]) == (0, "")
    assert "otter" in released[1]


def test_several_runs_and_a_zoom_can_be_typed(
    mlxops: Callable[[str], tuple[int, str, str]], db: Registry, invocation: Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLXOPS_DB", str(invocation.project.registry_path))
    code, out, err = mlxops("monitor --run heron,otter --last 20 --once")

    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("heron  completed")
    assert any("100" in line for line in out.splitlines())


@pytest.mark.parametrize("command", ["monitor --once", "run.show heron", "run.compare heron,otter", "checkpoints"])
def test_the_first_command_after_an_update_may_be_any(
    mlxops: Callable[[str], tuple[int, str, str]], db: Registry, invocation: Invocation, monkeypatch, command: str
) -> None:
    path = invocation.project.registry_path
    monkeypatch.setenv("MLXOPS_DB", str(path))
    db.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        for (view,) in older.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall():
            older.execute(f"DROP VIEW {view}")
        older.execute("ALTER TABLE checkpoints DROP COLUMN closing_standard_error")
        older.execute("ALTER TABLE checkpoints DROP COLUMN closing_elapsed_ms")
        older.execute("PRAGMA user_version = 5")

    code, _, err = mlxops(command)

    assert (code, err) == (0, "")


def test_a_run_that_was_asked_to_save_and_stop_is_stopping(db: Registry, invocation: Invocation) -> None:
    begin(db, db_run(db, "heron"))
    place = invocation.project.root / "adapters" / "heron" / lock.NAME
    place.parent.mkdir(parents=True)

    with Watch(invocation, ["heron"]) as watch, lock.hold(place, {"pid": 1}, what="the run"):
        before = watch.state()
        lock.say(place, stopping="SIGINT")
        after = watch.state()

    assert before is not None
    assert after is not None
    assert (before.is_stopping, after.is_stopping) == (False, True)
