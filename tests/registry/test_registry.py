"""The nine promises of db/README.md, each a test of that name; and that every public write works as it says."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import run_python
from registry_rows import age_heartbeats, new_attempt, new_run, report, save, status

from mlxops import registry
from mlxops.errors import BadRequest, NotFound
from mlxops.registry import Registry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with registry.open_registry(path) as opened:
        yield opened


# -- 1 --------------------------------------------------------------------------------------------------------------


def test_a_run_row_exists_before_the_first_step(db: Registry) -> None:
    run = new_run(db)

    (row,) = registry.list_runs(db)
    assert (row["id"], row["name"], row["status"], row["iteration"]) == (run.id, "heron", "created", 0)


# -- 2 --------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_row_exists_only_after_its_files_are_whole_for_it_takes_their_hashes(db: Registry) -> None:
    run = new_run(db)

    with pytest.raises(sqlite3.IntegrityError):
        save(db, run.id, None, 10, adapter_sha256=None)
    assert registry.checkpoints_of(db, run.id) == []


def test_a_checkpoint_row_is_written_with_synchronous_full_and_metrics_with_normal(db: Registry) -> None:
    run = new_run(db)
    levels = []
    db.connection.create_function(
        "level", 0, lambda: levels.append(db.connection.execute("PRAGMA synchronous").fetchone())
    )
    db.connection.execute("CREATE TEMP TRIGGER a AFTER INSERT ON checkpoints BEGIN SELECT level(); END")
    db.connection.execute("CREATE TEMP TRIGGER b AFTER INSERT ON metrics BEGIN SELECT level(); END")

    save(db, run.id, None, 10)
    report(db, run.id, None, 20, train_loss=1.0)

    assert levels == [(2,), (1,)]


# -- 3 --------------------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Registry, int, int], object]] = {
    "create_run": lambda db, run, attempt: new_run(db, None, tags=["a", "b"]),
    "update_run": lambda db, run, attempt: registry.update_run(db, run, note="new", config={"iters": 5}),
    "set_tags": lambda db, run, attempt: registry.set_tags(db, run, ["b", "c"]),
    "start_attempt": lambda db, run, attempt: new_attempt(db, run, 5, config={"iters": 7}),
    "record_report": lambda db, run, attempt: report(db, run, attempt, 10, train_loss=1.0, a_new_one=2.0),
    "record_validation": lambda db, run, attempt: registry.record_validation(
        db, run, attempt, iteration=10, loss=1.0, standard_error=0.1
    ),
    "add_checkpoint": lambda db, run, attempt: save(db, run, attempt, 10),
    "mark_checkpoint": lambda db, run, attempt: registry.mark_checkpoint(db, run, 5, "corrupt"),
    "add_event": lambda db, run, attempt: registry.add_event(db, run, attempt, kind="note", message="hello"),
    "end_attempt": lambda db, run, attempt: registry.end_attempt(
        db, attempt, reason="finished", status="completed", iteration=100
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_public_write_is_one_transaction_committed_on_return(db: Registry, path: Path, write: str) -> None:
    run = new_run(db)
    attempt = new_attempt(db, run.id)
    save(db, run.id, attempt, 5)
    statements: list[str] = []
    with registry.open_read_only(path) as other:
        before = registry.data_version(other)
        db.connection.set_trace_callback(statements.append)
        WRITES[write](db, run.id, attempt)
        assert registry.data_version(other) > before

    ends = [text for text in statements if text.split()[0] in ("BEGIN", "COMMIT", "ROLLBACK")]
    assert ends == ["BEGIN IMMEDIATE", "COMMIT"]


def test_an_error_inside_a_transaction_leaves_nothing_of_it(db: Registry) -> None:
    run = new_run(db)

    with pytest.raises(BadRequest, match="it has ','"):
        registry.set_tags(db, run.id, ["a", "b,c"])
    with pytest.raises(ValueError, match="not JSON compliant"):
        registry.update_run(db, run.id, note="half", config={"learning_rate": math.nan})

    assert registry.find_run(db, "heron")["tags"] == []
    assert registry.find_run(db, "heron")["note"] is None


def test_a_metric_named_in_a_lost_transaction_gets_its_points_all_the_same(db: Registry) -> None:
    run = new_run(db)
    with pytest.raises(KeyError):
        report(db, run.id, None, 10, new_one=1.0, another=Broken())  # type: ignore[arg-type]

    report(db, run.id, None, 20, another=2.0, new_one=3.0)

    assert registry.latest_metrics(db, run.id) == {"another": 2.0, "new_one": 3.0}


class Broken:
    def __float__(self) -> float:
        raise KeyError


# -- 4 --------------------------------------------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
from mlxops import registry
with registry.open_registry(Path(sys.argv[1])) as db:
    for iteration in range(1, 1_000_000):
        registry.record_report(db, 1, None, iteration=iteration, epoch=1, trained_tokens=1, metrics={"train_loss": 1.0})
        print(iteration, flush=True)
"""


def test_a_metric_is_there_when_its_call_returns_and_kill_9_loses_none(db: Registry, path: Path) -> None:
    run = new_run(db)
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(200)]
        writer.kill()
        lines += writer.stdout.read().splitlines(keepends=True)
        # the last line may be cut short
        last = max(int(line) for line in lines if line.endswith("\n"))

    points = registry.metric_series(db, run.id, "train_loss")
    assert [point["iteration"] for point in points] == list(range(1, len(points) + 1))
    assert len(points) >= last
    assert db.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- 5 --------------------------------------------------------------------------------------------------------------


def test_a_run_whose_process_died_is_shown_as_lost_never_as_running_in_plain_sql(db: Registry, path: Path) -> None:
    run = new_run(db)
    new_attempt(db, run.id)
    assert status(db) == "running"

    age_heartbeats(db, 61)

    shown = subprocess.run(
        ["sqlite3", path, "SELECT status, eta_seconds FROM run_summary"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "lost|\n"
    assert status(db) == "lost"
    assert registry.candidate_runs(db)[0]["status"] == "lost"


def test_a_heartbeat_of_50_seconds_ago_still_counts(db: Registry) -> None:
    new_attempt(db, new_run(db).id)

    age_heartbeats(db, 50)

    assert status(db) == "running"


def test_the_heartbeat_goes_on_inside_a_long_native_call(db: Registry, path: Path) -> None:
    run = new_run(db)
    attempt = new_attempt(db, run.id)
    age_heartbeats(db, 100)
    ended = threading.Event()
    with registry.open_registry(path) as other, registry.Heartbeat(path, attempt, every=0.001) as heartbeat:

        def interrupt_after_a_beat() -> None:
            heartbeat.beaten.clear()
            heartbeat.beaten.wait(30)
            while not ended.wait(0.001):  # one interrupt could come before the call does
                other.connection.interrupt()

        interrupting = threading.Thread(target=interrupt_after_a_beat)
        interrupting.start()
        # without an end of its own, and SQLite runs it without giving control back to this thread's Python
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            other.connection.execute(
                "WITH RECURSIVE steps (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM steps) SELECT max(n) FROM steps"
            )
        ended.set()
        interrupting.join()
        assert heartbeat.beaten.is_set()

    assert status(db) == "running"


def test_a_heartbeat_that_cannot_be_written_is_tried_again_and_disturbs_nobody(db: Registry, path: Path) -> None:
    attempt = new_attempt(db, new_run(db).id)
    age_heartbeats(db, 100)
    heartbeat = registry.Heartbeat(path, attempt, every=0.001)

    with ExitStack() as beating:
        with db.transaction():  # begun first: no beat can come before it
            beating.enter_context(heartbeat)
            assert not heartbeat.beaten.wait(0.05)
        assert heartbeat.beaten.wait(30)


def test_an_ended_attempt_does_not_beat(db: Registry, path: Path) -> None:
    attempt = new_attempt(db, new_run(db).id)
    registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=100)
    age_heartbeats(db, 100)
    before = registry.attempts_of(db, 1)

    with registry.Heartbeat(path, attempt, every=0.001) as heartbeat:
        assert heartbeat.beaten.wait(30)

    assert registry.attempts_of(db, 1) == before


def test_a_heartbeat_tells_how_far_the_attempt_is_and_when_it_will_end(db: Registry, path: Path) -> None:
    run = new_run(db)
    attempt = new_attempt(db, run.id)
    told = registry.Progress(
        iteration=7, step_loss=1.25, iterations_per_second=0.5, tokens_per_second=64.0, seconds_left=1e30
    )

    with registry.Heartbeat(path, attempt, progress=lambda: told) as heartbeat:
        heartbeat.ask()
        assert heartbeat.beaten.wait(30)

    (row,) = registry.attempts_of(db, run.id)
    known = ("at_iteration", "step_loss", "iterations_per_second", "tokens_per_second")
    assert [row[column] for column in known] == [7, 1.25, 0.5, 64.0]
    assert "2120" < (row["expected_end_at"] or "") < "2200"


# -- 6 and 7: test_registry_schema.py -------------------------------------------------------------------------------

# -- 8 --------------------------------------------------------------------------------------------------------------


def test_nothing_deletes_rows_but_the_start_of_an_attempt_which_removes_the_metrics_beyond_it(db: Registry) -> None:
    run, other = new_run(db), new_run(db, "other")
    first = new_attempt(db, run.id)
    for iteration in (10, 20, 25, 30):
        report(db, run.id, first, iteration, train_loss=iteration / 10)
        registry.record_validation(db, run.id, first, iteration=iteration, loss=40 - iteration, standard_error=0.1)
        save(db, run.id, first, iteration, validation_loss=40 - iteration)
        registry.add_event(db, run.id, first, kind="saved", message="saved", iteration=iteration)
        report(db, other.id, None, iteration, train_loss=1.0)

    new_attempt(db, run.id, 25, closing=["train_loss"])

    row = registry.find_run(db, "heron")
    assert (row["iteration"], row["trained_tokens"], row["best_iteration"], row["best_validation_loss"]) == (
        25,
        250,
        25,
        15,
    )
    assert [point["iteration"] for point in registry.metric_series(db, run.id, "train_loss")] == [10, 20]
    assert [point["iteration"] for point in registry.metric_series(db, run.id, "validation_loss")] == [10, 20, 25]
    assert registry.latest_metrics(db, run.id) == {
        "train_loss": 2.0, "validation_loss": 15.0, "validation_standard_error": 0.1,
    }  # fmt: skip
    assert len(registry.checkpoints_of(db, run.id)) == 4
    assert len(registry.events_of(db, run.id)) == 4
    assert len(registry.metric_series(db, other.id, "train_loss")) == 4


def test_starting_at_0_removes_every_metric_and_the_best(db: Registry) -> None:
    run = new_run(db)
    registry.record_validation(db, run.id, None, iteration=0, loss=3.0, standard_error=0.1)
    report(db, run.id, None, 10, train_loss=1.0)

    new_attempt(db, run.id)

    assert registry.loss_curve(db, run.id) == []
    assert registry.latest_metrics(db, run.id) == {}
    assert registry.find_run(db, "heron")["best_iteration"] is None


def test_an_event_told_again_by_a_redone_iteration_is_shown_once(db: Registry) -> None:
    run = new_run(db)
    for number, start in enumerate((0, 10, 10), start=1):
        attempt = new_attempt(db, run.id, start)
        registry.add_event(db, run.id, attempt, kind="resumed", message=f"start {number}", iteration=start)
        registry.add_event(db, run.id, attempt, kind="skipped", message=f"skip {number}", iteration=15)
        registry.add_event(db, run.id, attempt, kind="skipped", message=f"again {number}", iteration=15)
        registry.add_event(db, run.id, attempt, kind="memory", message=f"memory {number}")
    registry.add_event(db, run.id, 1, kind="skipped", message="only once", iteration=18)

    told = [event["message"] for event in registry.events_of(db, run.id)]
    assert told == [
        "start 1", "memory 1", "start 2", "memory 2", "start 3", "skip 3", "again 3", "memory 3", "only once",
    ]  # fmt: skip
    assert db.connection.execute("SELECT count(*) FROM events").fetchone() == (13,)


# -- 9: the views and SQL that a person types: test_registry_queries.py ---------------------------------------------


def test_a_value_that_is_not_finite_is_a_point_without_a_value(db: Registry) -> None:
    run = new_run(db)
    for iteration, loss in enumerate((2.0, math.nan, 1.0, math.inf), start=1):
        report(db, run.id, None, iteration, train_loss=loss)

    ((count, not_finite, last, lowest, highest),) = db.connection.execute(
        "SELECT count, not_finite, last_value, min_value, max_value FROM series"
    ).fetchall()
    assert (count, not_finite, last, lowest, highest) == (4, 2, None, 1.0, 2.0)
    assert [row["train_loss"] for row in registry.loss_curve(db, run.id)] == [2.0, None, 1.0, None]


def test_what_is_not_there_is_named(db: Registry) -> None:
    with pytest.raises(NotFound, match="no runs yet"):
        registry.find_run(db, "latest")
    new_run(db, "smollm2-quiet-heron")
    with pytest.raises(NotFound, match="no run 'smollm2-quiet-herom'") as caught:
        registry.find_run(db, "smollm2-quiet-herom")
    assert "'smollm2-quiet-heron'" in str(caught.value.hint)
    with pytest.raises(NotFound):
        report(db, 99, None, 1, train_loss=1.0)


def test_a_registry_is_written_without_loading_pandas_and_numpy_and_leaves_them_to_others(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mlxops import registry; from registry_rows import new_run\n"
        "with registry.open_registry(Path(sys.argv[1])) as db: new_run(db, 'heron')\n"
        "print('sqlite_utils' in sys.modules, *{'pandas', 'numpy'} & set(sys.modules))\n"
        "import numpy; print(numpy.int8(7))"
    )

    assert run_python("-c", program, str(path)) == (0, "True\n7\n", "")


def test_another_thread_can_load_numpy_while_the_registry_does_without_it(path: Path) -> None:
    # not in a finder, which Python calls under the one lock of all imports
    program = (
        "import sys; from pathlib import Path; from threading import Thread; from mlxops import registry\n"
        "from registry_rows import new_run\n"
        "def load(): import numpy; print(numpy.int8(7), flush=True)\n"
        "def meanwhile(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'sqlite_utils.db':\n"
        "        thread = Thread(target=load, daemon=True); thread.start(); thread.join(20)\n"
        "sys.addaudithook(meanwhile)\n"
        "with registry.open_registry(Path(sys.argv[1])) as db: new_run(db, 'heron')\n"
        "print('sqlite_utils' in sys.modules, [each for each in sys.meta_path if 'mlxops' in type(each).__module__])"
    )

    assert run_python("-c", program, str(path)) == (0, "7\nTrue []\n", "")
