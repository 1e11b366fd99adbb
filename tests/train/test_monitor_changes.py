"""What the monitor takes for a change: rows, deaths and silence of processes, deleted runs, another registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from history_rows import begin, new_run
from registry_rows import age_heartbeats, die
from watched_runs import db_run, report, shown

from mlxops import registry
from mlxops.errors import NotFound
from mlxops.jobs.train.monitor import Watch
from mlxops.projects.invocation import Invocation
from mlxops.registry import Registry
from mlxops.training import lock


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
