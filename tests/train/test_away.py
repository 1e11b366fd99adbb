"""A registry that is away while a run trains: no step is lost, and its history ends as that of an undisturbed run.

The faults are real: another connection's transaction, SQLite's own limit of pages, files that are moved and written.
"""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import registry_faults
import training_runs
from training_runs import RUN, assert_exact, copy_project, lora, straight, straight_project

from mlxops import registry

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return training_runs.make_project(tmp_path / "trained", tiny_model)


def history(project: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The events, checkpoints, points and attempts of the run, without times and wall-clock figures."""
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        events = registry.events_of(db, run["id"])
        saved = registry.checkpoints_of(db, run["id"])
        points = db.rows("SELECT name, iteration FROM metric WHERE run = 'run' ORDER BY name, iteration")
        attempts = registry.attempts_of(db, run["id"])
    return {
        "events": [(row["iteration"], row["level"], row["kind"], row["message"]) for row in events],
        "checkpoints": [(row["iteration"], row["status"], row["is_best"], row["attempt_id"] is None) for row in saved],
        "points": [tuple(row.values()) for row in points],
        "attempts": [(row["number"], row["start_kind"], row["end_reason"], row["to_iteration"]) for row in attempts],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The history of the run that nothing befell."""
    made = tmp_path_factory.mktemp("undisturbed") / "project"
    return history(copy_project(straight_project(tiny_model, *RUN), made))


def waiting(project: Path) -> list[str]:
    """The files with what the registry lacks."""
    return sorted(path.name for path in (project / "adapters" / "run").glob("*_waiting*"))


# held by another program ----------------------------------------------------------------------------------------------


def test_a_registry_that_another_program_holds_for_a_while_misses_nothing(
    project: Path, tiny_model: Path, undisturbed: dict[str, Any]
) -> None:
    ended = lora(project, *RUN, first=partial(registry_faults.hold, project))

    assert ended.code == 0, ended.said
    assert_exact(project, straight(tiny_model, *RUN))
    assert history(project) == undisturbed
    assert len(re.findall("the registry is away: another process keeps", ended.said)) == 1
    assert len(re.findall("the registry is back", ended.said)) == 1
    assert waiting(project) == []


def test_a_registry_that_is_held_to_the_end_ends_it_with_1_and_the_next_command_completes_the_history(
    project: Path, tiny_model: Path, undisturbed: dict[str, Any]
) -> None:
    ended = lora(project, *RUN, first=partial(registry_faults.hold_to_the_end, project))
    trained = training_runs.steps_trained(project)
    finished = lora(project, *RUN)

    assert ended.code == 1
    assert "trained to iteration 13 and saved, but the registry could not be written" in ended.said
    assert (trained, finished.code, training_runs.steps_trained(project)) == (13, 0, 13)
    assert_exact(project, straight(tiny_model, *RUN))
    assert history(project) == undisturbed
    assert waiting(project) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_waits_when_a_signal_comes_is_in_the_newest_checkpoint(
    project: Path, tiny_model: Path, undisturbed: dict[str, Any], number: signal.Signals
) -> None:
    stopped = lora(project, *RUN, first=partial(registry_faults.hold_and_signal, project, number))
    kept = waiting(project)
    finished = lora(project, *RUN)

    assert (stopped.code, finished.code) == (130 if number == signal.SIGINT else -signal.SIGKILL, 0)
    assert kept[:3] == [f"{iteration:07d}_waiting.jsonl" for iteration in (4, 5, 8)]
    assert_exact(project, straight(tiny_model, *RUN))
    assert history(project)["points"] == undisturbed["points"]
    assert waiting(project) == []


def test_a_registry_that_is_away_before_the_first_step_ends_it_with_1(project: Path) -> None:
    ended = lora(project, *RUN, first=partial(registry_faults.hold_from_the_start, project))

    assert (ended.code, training_runs.steps_trained(project)) == (1, 0)
    assert "another process keeps" in ended.said


# full, and read-only --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["disk I/O error", "is read-only"])
def test_a_full_disk_and_a_file_that_is_read_only_for_a_while_cost_nothing(
    project: Path, tiny_model: Path, undisturbed: dict[str, Any], said: str
) -> None:
    first = {
        "disk I/O error": partial(registry_faults.limit_the_log, project / "runs.db-wal"),
        "is read-only": partial(registry_faults.fail_to_write, "PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
    }

    ended = lora(project, *RUN, first=first[said])

    assert ended.code == 0, ended.said
    assert f"the registry is away: cannot write {str(project / 'runs.db')!r}" in ended.said
    assert said in ended.said
    assert_exact(project, straight(tiny_model, *RUN))
    assert history(project) == undisturbed


# removed and replaced -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        registry_faults.remove, registry_faults.remove_with_its_log, registry_faults.move_away,
        registry_faults.replace_by_an_empty_one, registry_faults.replace_by_another_projects,
        registry_faults.replace_by_an_older_copy,
    ],
)  # fmt: skip
def test_a_registry_that_is_removed_or_replaced_has_the_whole_run_again(
    project: Path, tiny_model: Path, undisturbed: dict[str, Any], change: Callable[[Path], None]
) -> None:
    ended = lora(project, *RUN, first=partial(registry_faults.change_the_file, change, project / "runs.db"))

    assert ended.code == 0, ended.said
    assert_exact(project, straight(tiny_model, *RUN))
    assert history(project) == undisturbed
    with registry.open_read_only(project / "runs.db") as db:
        assert db.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        others = db.rows(
            "SELECT name, iteration, heartbeat_at = started_at AS is_untouched"
            " FROM runs JOIN attempts ON run_id = runs.id WHERE name <> 'run'"
        )
    assert others in ([], [{"name": "another", "iteration": 0, "is_untouched": 1}])


@pytest.mark.parametrize("change", [registry_faults.empty, registry_faults.overwrite_by_an_older_copy])
def test_a_registry_that_is_written_over_in_its_place_has_the_run_from_its_folder(
    project: Path, tiny_model: Path, change: Callable[[Path], None]
) -> None:
    ended = lora(project, *RUN, first=partial(registry_faults.change_the_file, change, project / "runs.db"))
    got, expected = training_runs.result(project, "run"), straight(tiny_model, *RUN)
    later = {key: value for key, value in expected["metrics"].items() if key[1] >= registry_faults.FIRST}

    assert ended.code == 0, ended.said
    assert later.items() <= got.pop("metrics").items()
    assert got == {name: value for name, value in expected.items() if name != "metrics"}


def test_the_file_of_another_program_in_its_place_is_left_alone(project: Path, tiny_model: Path) -> None:
    change, path = registry_faults.replace_by_another_programs, project / "runs.db"

    ended = lora(project, *RUN, first=partial(registry_faults.change_the_file, change, path, 0.0))
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_schema").fetchall()
    path.unlink()
    finished = lora(project, *RUN)
    got, expected = training_runs.result(project, "run"), straight(tiny_model, *RUN)

    assert (ended.code, tables, finished.code) == (1, [("bookmarks",)], 0), ended.said
    assert "is a database of another program" in ended.said
    assert training_runs.steps_trained(project) == 13
    assert (got["last"], got["checkpoints"]) == (expected["last"], expected["checkpoints"])


# keeping only the last ------------------------------------------------------------------------------------------------


def test_keep_last_removes_nothing_meanwhile_and_afterwards_what_it_would_have(project: Path, tmp_path: Path) -> None:
    seen, keep = tmp_path / "seen", ("--keep-last", "1", "--val-batches", "0")

    ended = lora(project, *RUN, *keep, first=partial(registry_faults.hold_and_look, project, seen))
    left = sorted(path.name for path in (project / "adapters" / "run").glob("[0-9]*_state*"))

    assert ended.code == 0, ended.said
    assert seen.read_text().split() == ["0000004_state.safetensors", "0000008_state.safetensors"]
    assert left == ["0000013_state.safetensors"]
