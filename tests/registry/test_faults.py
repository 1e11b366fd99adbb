"""What goes wrong around a registry: full disks, read-only folders, foreign files, dead processes, wrong names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from empty_registry import open_empty
from registry_rows import new_attempt, new_run, report, save, status

from mlxops import registry
from mlxops.errors import BadRequest, Failed, NotFound, Refused
from mlxops.registry import Registry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with open_empty(path) as opened:
        yield opened


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )


# -- disks and folders ----------------------------------------------------------------------------------------------

_UNTIL_IT_FAILS = """
import resource, sys
from pathlib import Path
from mlxops import registry
from mlxops.errors import Failed
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
with registry.open_registry(Path(sys.argv[1])) as db:
    for iteration in range(1, 100_000):
        try:
            registry.record_report(
                db, 1, None, iteration=iteration, epoch=1, trained_tokens=1, metrics={"train_loss": 1.0, "x": 2.0}
            )
        except Failed as error:
            message = error.message
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    registry.add_event(db, 1, None, kind="room", message="there is room again")
    print(iteration - 1, message)
"""


def test_a_write_that_fails_says_so_and_leaves_the_database_usable(db: Registry, path: Path) -> None:
    run = new_run(db)
    size = max(file.stat().st_size for file in path.parent.iterdir())

    done = run_python(_UNTIL_IT_FAILS, path, size + 100_000)

    assert done.stderr == ""
    last, message = done.stdout.split(" ", 1)
    assert message.startswith(f"cannot write {str(path)!r}: ")
    points = registry.metric_series(db, run.id, "train_loss")
    assert [point["iteration"] for point in points] == list(range(1, int(last) + 1))
    assert [event["kind"] for event in registry.events_of(db, run.id)] == ["room"]
    report(db, run.id, None, 200_000, train_loss=1.0)
    assert db.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


_WITHOUT_PRIVILEGES = """
import ctypes, os, sys
from pathlib import Path
from mlxops import registry
from mlxops.errors import MlxopsError
if os.geteuid() == 0:
    # root keeps its id and loses what lets it write anywhere
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).syscall(126, header, (ctypes.c_uint32 * 6)()) == 0
path = Path(sys.argv[1])
print(registry.query(path, "SELECT name FROM run_summary").rows)
with registry.open_read_only(path) as db:
    print(registry.find_run(db, "latest")["name"])
try:
    with registry.open_registry(path) as db:
        registry.set_tags(db, 1, ["x"])
except MlxopsError as error:
    print(type(error).__name__, error.message)
"""


@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("log", [False, True])
def test_a_read_only_folder_can_be_read_and_a_write_to_it_says_why_not(path: Path, log: bool) -> None:
    folder = path.parent / "shelf"
    folder.mkdir()
    with registry.open_registry(path) as db:
        new_run(db)
        if log:
            # as a killed process leaves them
            for file in path.parent.glob("runs.db*"):
                shutil.copy(file, folder)
    if not log:
        shutil.copy(path, folder)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)

    done = run_python(_WITHOUT_PRIVILEGES, folder / "runs.db")

    folder.chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["[('heron',)]", "heron"]
    assert done.stdout.splitlines()[2].startswith(f"Failed cannot write {str(folder / 'runs.db')!r}: ")


def test_what_is_no_registry_is_not_touched(path: Path) -> None:
    path.write_text("a letter to a friend, longer than the header of a database" * 10)

    for opening in (registry.open_registry, registry.open_read_only):
        with pytest.raises(Failed, match="is not a registry"):
            opening(path)
    assert path.read_text().startswith("a letter")


def test_the_database_of_another_program_is_not_touched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE bookmarks (address TEXT)")
    before = path.read_bytes()

    with pytest.raises(Refused, match="another program"):
        registry.open_registry(path)
    assert path.read_bytes() == before


def test_a_folder_in_the_registrys_place_and_a_file_in_its_folders_place_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Failed, match="cannot open"):
        registry.open_registry(tmp_path)
    with pytest.raises(Failed, match="cannot make the folder"):
        registry.open_registry(tmp_path / "file" / "runs.db")


def test_a_writer_that_waits_too_long_says_who_is_in_the_way(db: Registry, path: Path) -> None:
    new_run(db)
    with registry.open_registry(path) as other, db.transaction():
        other.connection.execute("PRAGMA busy_timeout=1")
        with pytest.raises(Failed, match="another process keeps"):
            registry.set_tags(other, 1, ["x"])


# -- dead processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_attempt_of_a_process_that_is_gone_is_closed_at_once(db: Registry, path: Path) -> None:
    run = new_run(db)
    alive = new_run(db, "alive")
    new_attempt(db, alive.id)
    script = """
import sys
from pathlib import Path
from mlxops import registry
from registry_rows import new_attempt, report
db = registry.open_registry(Path(sys.argv[1]))
report(db, 1, new_attempt(db, 1), 30, train_loss=1.0)
"""
    assert run_python(script, path).stderr == ""

    assert registry.close_dead_attempts(db) == 1
    assert registry.close_dead_attempts(db) == 0

    (attempt,) = registry.attempts_of(db, run.id)
    assert (attempt["end_reason"], attempt["to_iteration"]) == ("lost", 30)
    assert attempt["ended_at"] == attempt["heartbeat_at"]
    assert (status(db), status(db, "alive")) == ("interrupted", "running")


@pytest.mark.parametrize(
    ("column", "value", "closed"),
    [
        ("command", "inv lora", 0),
        ("boot_id", "another start of this machine", 1),
        ("process_started", "42", 1),
        ("host", "another-machine", 0),
    ],
)
def test_an_attempt_is_closed_only_on_proof(db: Registry, column: str, value: object, closed: int) -> None:
    new_attempt(db, new_run(db).id)
    db.connection.execute(f"UPDATE attempts SET {column} = ?", (value,))

    assert registry.close_dead_attempts(db) == closed


def test_a_zombie_is_dead(db: Registry) -> None:
    new_attempt(db, new_run(db).id)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        # waits without taking its exit status: a zombie from here on
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        db.connection.execute("UPDATE attempts SET pid = ?, process_started = NULL", (child.pid,))
        assert registry.close_dead_attempts(db) == 1


def test_a_process_that_lost_its_run_to_a_later_one_does_not_end_it(db: Registry) -> None:
    run = new_run(db)
    first = new_attempt(db, run.id)
    new_attempt(db, run.id)

    registry.end_attempt(db, first, reason="failed", status="failed", iteration=7, error="late")

    assert status(db) == "running"
    assert registry.find_run(db, "heron")["iteration"] == 0


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_run_without_a_name_gets_a_readable_one(db: Registry) -> None:
    first = new_run(db, None, word_seed=1)
    second = new_run(db, None, word_seed=1)
    third = registry.new_name(db, "org/Ünïcode model.gguf", 1)

    assert first.name.startswith("smollm2-135m-")
    assert len(first.name.split("-")) == 4
    assert first.name != second.name
    assert first.adapter_path == f"adapters/{first.name}"
    assert third.startswith("unicode-model.gguf-")


def test_a_name_is_never_given_twice_or_to_a_folder_that_is_there(db: Registry) -> None:
    taken = registry.new_name(db, "m", 0)

    assert registry.new_name(db, "m", 0, avoid=[taken]) != taken
    new_run(db, "heron")
    with pytest.raises(Refused, match="there is a run 'heron' already"):
        new_run(db, "heron")


@pytest.mark.parametrize("name", ["", " ", "latest", "a/b", "a,b", "a:b", "..", "-x", "@x", "a\nb", "x" * 300])
def test_a_name_that_could_not_be_a_folder_or_an_option_is_refused(db: Registry, name: str) -> None:
    with pytest.raises(BadRequest):
        new_run(db, name)


@pytest.mark.parametrize("name", ["It's a run", "été 2026", "日本語"])
def test_a_name_may_have_spaces_quotes_and_any_letters(db: Registry, name: str) -> None:
    new_run(db, name)

    assert registry.find_run(db, name)["adapter_path"] == f"adapters/{name}"


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_the_whole_one_with_the_lowest_validation_loss(db: Registry) -> None:
    run = new_run(db)
    for iteration, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, None)):
        save(db, run.id, None, iteration, validation_loss=loss)
    assert db.rows("SELECT iteration FROM best_checkpoint") == [{"iteration": 20}]

    registry.mark_checkpoint(db, run.id, 20, "corrupt")

    assert db.rows("SELECT iteration FROM best_checkpoint") == [{"iteration": 30}]
    with pytest.raises(NotFound, match="no checkpoint at iteration 50"):
        registry.mark_checkpoint(db, run.id, 50, "missing")


def test_a_checkpoint_written_again_is_whole_again_and_offered(db: Registry) -> None:
    run = new_run(db)
    first = save(db, run.id, None, 10)
    registry.mark_checkpoint(db, run.id, 10, "corrupt")

    again = save(db, run.id, None, 10, adapter_sha256="c" * 64, trained_tokens=123, epoch=2)

    (row,) = registry.checkpoints_of(db, run.id)
    assert (again, row["status"], row["adapter_sha256"], row["verified_at"]) == (first, "whole", "c" * 64, None)
    found = registry.find_run(db, "heron")
    assert (found["offered_checkpoint_id"], found["iteration"], found["trained_tokens"]) == (first, 10, 123)
