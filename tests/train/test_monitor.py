"""What the monitor is given to show: which run, what changed, and how a run that ends, dies or begins is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from empty_registry import open_empty
from history_rows import begin, new_run
from registry_rows import age_heartbeats, die

from mlxops import registry
from mlxops.config import MonitorConfig
from mlxops.errors import BadRequest, NotFound
from mlxops.jobs.train.monitor import CURVES, Watch, open_watch
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import Registry
from mlxops.training import lock
from mlxops.ui.terminal import exact


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    return Invocation(project=Project.at(tmp_path))


@pytest.fixture
def db(invocation: Invocation) -> Iterator[Registry]:
    """Two runs: `heron`, finished at 100 with its best at 50, and the newer `otter`, which has not begun."""
    with open_empty(invocation.project.registry_path) as opened:
        heron = new_run(opened, "heron")
        attempt = begin(opened, heron)
        report(opened, heron.id, attempt, 1, 101)
        for iteration, loss in ((50, 2.0), (100, 2.5)):
            registry.record_validation(opened, heron.id, attempt, iteration=iteration, loss=loss, standard_error=0.1)
        registry.end_attempt(opened, attempt, reason="finished", status="completed", iteration=100)
        new_run(opened, "otter")
        yield opened


def report(db: Registry, run: int, attempt: int, first: int, end: int) -> None:
    for iteration in range(first, end):
        figures = {"train_loss": 100 / iteration, "learning_rate": 1e-5, "iterations_per_second": 2.0}
        registry.record_report(
            db, run, attempt, iteration=iteration, epoch=1, trained_tokens=iteration, metrics=figures
        )


def shown(watch: Watch) -> str:
    state = watch.state()
    assert state is not None
    return str(state.run["name"])


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


def db_run(db: Registry, name: str) -> registry.CreatedRun:
    found = registry.find_run(db, name)
    return registry.CreatedRun(found["id"], found["name"], found["adapter_path"])


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


# runs that are deleted meanwhile -------------------------------------------------------------------------------------


def test_of_several_runs_one_that_is_deleted_is_left_out_and_named(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron", "otter"]) as watch:
        watch.state()
        registry.remove_runs(db, [2])
        state = watch.state()
        watch.switch(1)
        later = watch.state()

    assert state is not None
    assert (state.run["name"], state.others, state.gone) == ("heron", [], ["otter"])
    assert later is not None
    assert (later.run["name"], later.gone) == ("heron", [])


def test_of_several_runs_another_is_shown_where_the_shown_one_is_deleted(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron", "otter"]) as watch:
        watch.state()
        registry.remove_runs(db, [1])
        state = watch.state()

    assert state is not None
    assert (state.run["name"], state.gone) == ("otter", ["heron"])


def test_it_ends_where_every_run_that_was_asked_for_is_deleted(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation, ["heron"]) as watch:
        watch.state()
        registry.remove_runs(db, [1])
        with pytest.raises(NotFound, match=r"^'heron': deleted while shown$"):
            watch.state()


def test_where_nothing_was_asked_for_the_newest_is_shown_once_the_shown_one_is_deleted(
    db: Registry, invocation: Invocation
) -> None:
    with Watch(invocation) as watch:
        watch.state()
        registry.remove_runs(db, [2])
        state = watch.state()
        registry.remove_runs(db, [1])

        assert watch.state() is None
    assert state is not None
    assert (state.run["name"], state.gone) == ("heron", ["otter"])


# what has changed ----------------------------------------------------------------------------------------------------


def test_nothing_written_is_no_change_and_anything_written_is_one(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        before, unchanged = watch.changed(), watch.changed()
        registry.add_event(db, 1, None, kind="note", message="hello")

        assert before == unchanged != watch.changed()


def test_a_process_that_died_is_noticed_though_nothing_was_written(db: Registry, invocation: Invocation) -> None:
    attempt = begin(db, db_run(db, "otter"))
    with Watch(invocation) as watch:
        watch.state()
        before = watch.changed()
        die(db, attempt)
        after = watch.changed()
        state = watch.state()

    assert before[0] != after[0]
    assert state is not None
    assert (state.run["status"], state.attempts[-1]["end_reason"]) == ("interrupted", "lost")


def test_a_dead_attempt_is_shown_as_lost_while_another_process_writes(db: Registry, invocation: Invocation) -> None:
    attempt = begin(db, db_run(db, "otter"))
    die(db, attempt)
    with Watch(invocation) as watch:
        with db.transaction():
            locked = watch.state()
        released = watch.state()

    assert locked is not None
    assert released is not None
    assert (locked.run["status"], locked.run["eta_seconds"], locked.at_work) == ("lost", None, [])
    assert (released.run["status"], released.attempts[-1]["end_reason"]) == ("interrupted", "lost")


_LOOKING = """
import sys
from pathlib import Path
import training_runs
from mlxops.jobs.train.monitor import Watch
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
training_runs.obey_permissions()
root = Path.cwd()
with Watch(Invocation(project=Project(root=root, cwd=root, registry_path=Path(sys.argv[1])))) as watch:
    before = None
    for line in sys.stdin:
        seen = watch.changed()
        state = watch.state()
        print(state.run["name"], state.run["iteration"], seen != before, flush=True)
        before = seen
"""


@pytest.mark.slow
def test_in_a_folder_that_is_read_only_what_others_write_is_seen(db: Registry, invocation: Invocation) -> None:
    folder = invocation.project.registry_path.parent
    db.close()
    command = [sys.executable, "-c", _LOOKING, str(invocation.project.registry_path)]
    looking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def look() -> str:
        folder.chmod(0o555)
        assert looking.stdin is not None
        assert looking.stdout is not None
        looking.stdin.write("look\n")
        looking.stdin.flush()
        seen = looking.stdout.readline().strip()
        folder.chmod(0o755)
        return seen

    seen = [look(), look()]
    with registry.open_registry(invocation.project.registry_path) as writer:
        wren = new_run(writer, "wren")
        attempt = begin(writer, wren)
        seen.append(look())
        report(writer, wren.id, attempt, 1, 3)
        seen.append(look())
        registry.end_attempt(writer, attempt, reason="finished", status="completed", iteration=2)
    seen.append(look())
    looking.communicate()

    assert seen == ["otter 0 True", "otter 0 False", "wren 0 True", "wren 2 True", "wren 2 True"]


def test_a_process_elsewhere_that_fell_silent_is_a_change(db: Registry, invocation: Invocation) -> None:
    attempt = begin(db, db_run(db, "otter"))
    with db.transaction() as connection:
        connection.execute(
            "UPDATE attempts SET host = 'elsewhere', heartbeat_at = '2026-01-01T00:00:00.000Z' WHERE id = ?",
            (attempt,),
        )
    with Watch(invocation) as watch:
        state, silent = watch.state(), watch.changed()
        registry.record_report(db, 2, attempt, iteration=1, epoch=1, trained_tokens=1, metrics={"train_loss": 1.0})
        beating = watch.changed()

    assert state is not None
    assert state.run["status"] == "lost"
    assert (silent[0], beating[0]) == ((), (attempt,))


def test_a_run_that_is_kept_from_writing_is_alive_by_its_lock(db: Registry, invocation: Invocation) -> None:
    begin(db, db_run(db, "heron"))
    age_heartbeats(db, 120)
    place = invocation.project.root / "adapters" / "heron" / lock.NAME
    place.parent.mkdir(parents=True)

    with Watch(invocation, ["heron"]) as watch:
        dead = watch.state()
        with lock.hold(place, {}, what="the run"):
            alive = watch.state()

    assert dead is not None
    assert alive is not None
    assert (dead.run["status"], dead.is_alive) == ("lost", False)
    assert (alive.run["status"], alive.is_alive) == ("lost", True)


def test_a_registry_that_was_replaced_is_read_anew(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        before = watch.changed()
        other = invocation.project.registry_path.with_name("other.db")
        with registry.open_registry(other) as made:
            new_run(made, "wren")
        for each in ("-wal", "-shm"):
            Path(f"{invocation.project.registry_path}{each}").unlink(missing_ok=True)
        other.replace(invocation.project.registry_path)

        assert watch.changed() != before
        assert shown(watch) == "wren"


def test_watching_holds_no_transaction_open(db: Registry, invocation: Invocation) -> None:
    with Watch(invocation) as watch:
        watch.state()
        registry.add_event(db, 1, None, kind="note", message="hello")
        busy, in_log, moved = db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    assert (busy, in_log, moved) == (0, 0, 0)


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
