"""What saved queries say of branches, adopted, imported, resumed and diverged runs, of pauses and of runs at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import known_registry
import pytest

from mlxops import registry
from mlxops.registry import Registry

HERON, OTTER, WREN, SWIFT, CRANE, KESTREL = known_registry.IDS.values()


@pytest.fixture
def path() -> Path:
    """The known registry, in the current folder and free to be changed."""
    Path("runs.db").write_bytes(known_registry.content())
    return Path("runs.db")


@pytest.fixture
def db(path: Path) -> Iterator[Registry]:
    with registry.open_registry(path) as opened:
        yield opened


def asked(path: Path, name: str, **parameters: object) -> list[dict[str, Any]]:
    saved = registry.saved_query(name)
    found = registry.query(path, saved.sql, dict.fromkeys(saved.parameters) | parameters)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def of_run(path: Path, name: str, run: str, **parameters: object) -> dict[str, Any]:
    (row,) = [row for row in asked(path, name, **parameters) if run in (row.get("run"), row.get("name"))]
    return row


def change(db: Registry, table: str, where: str, **columns: object) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    assert db.connection.execute(f"UPDATE {table} SET {assignments} WHERE {where}", columns).rowcount


def configure(db: Registry, run_id: int, **settings: object) -> None:
    ((config,),) = db.connection.execute("SELECT config FROM runs WHERE id = ?", (run_id,)).fetchall()
    change(db, "runs", f"id = {run_id}", config=json.dumps(json.loads(config) | settings))


def put(db: Registry, run_id: int, name: str, points: dict[int, float | None]) -> None:
    """Give a run these points of a curve in place of those it has; one a second."""
    ((name_id,),) = db.connection.execute("SELECT id FROM metric_names WHERE name = ?", (name,)).fetchall()
    for table in ("metrics", "series"):
        db.connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND name_id = ?", (run_id, name_id))
    for iteration, value in points.items():
        registry.record_report(db, run_id, None, iteration=iteration, epoch=1, trained_tokens=0, metrics={name: value})
    db.connection.execute(
        "UPDATE metrics SET elapsed_ms = 1000 * iteration WHERE run_id = ? AND name_id = ?", (run_id, name_id)
    )


def adopt(db: Registry, run_id: int, iteration: int) -> None:
    """Make a run one that took an adapter over, which had been trained up to an iteration."""
    configure(db, run_id, origin={"kind": "warm", "iteration": iteration})
    change(db, "attempts", f"run_id = {run_id} AND number = 1", start_kind="warm", from_iteration=iteration)


# -- time -----------------------------------------------------------------------------------------------------------


def test_the_time_left_of_an_adopted_run_is_at_the_rate_of_its_own_training(db: Registry, path: Path) -> None:
    adopt(db, WREN, 20)

    # 20 iterations in 40 s, and 60 to go
    assert of_run(path, "unfinished", "wren")["seconds_left"] == 120


def test_the_time_left_is_at_the_rate_of_the_newest_attempt_that_got_anywhere(db: Registry, path: Path) -> None:
    change(db, "attempts", "run_id = 4 AND number = 2", from_iteration=60)

    # swift's first attempt: 5 iterations in 10 s
    assert of_run(path, "unfinished", "swift")["seconds_left"] == 80


def test_imported_runs_are_none_to_be_finished(db: Registry, path: Path) -> None:
    change(db, "runs", "name = 'wren'", imported_from="adapters/wren")

    assert [row["name"] for row in asked(path, "unfinished")] == ["crane", "swift"]


def test_an_attempt_past_midnight_counts_on_both_days(db: Registry, path: Path) -> None:
    times = {"started_at": "2026-03-02T18:00:00.000Z", "ended_at": "2026-03-04T02:00:00.000Z"}
    change(db, "attempts", f"run_id = {OTTER}", **times)

    days = {row["day"]: row for row in asked(path, "activity")}

    # 32 hours: 6, 24 and 2 of them, beside wren's 40 iterations and swift's 10
    assert [days[f"2026-03-0{day}"]["hours"] for day in (2, 3, 4)] == [6.0, 24.01, 2.01]
    assert [days[f"2026-03-0{day}"]["iterations"] for day in (2, 3, 4)] == [18, 75 + 40, 7 + 10]
    assert [days[f"2026-03-0{day}"]["runs"] for day in (2, 3, 4)] == [1, 2, 2]


def test_an_attempt_that_took_no_time_counts_on_its_day(db: Registry, path: Path) -> None:
    change(db, "attempts", f"run_id = {OTTER}", ended_at="2026-03-02T10:00:00.000Z")

    assert [(row["iterations"], row["hours"]) for row in asked(path, "activity") if row["day"] == "2026-03-02"] == [
        (100, 0.0)
    ]


def test_the_time_to_a_loss_of_an_imported_run_is_that_of_its_log(db: Registry, path: Path) -> None:
    change(db, "runs", "name = 'otter'", imported_from="training.log")
    change(db, "attempts", f"run_id = {OTTER}", started_at="2026-03-02T10:00:30.000Z")

    assert of_run(path, "time_to_loss", "otter", loss=1.9)["seconds"] == 40


def test_the_time_to_a_loss_of_a_run_at_work_does_not_end_with_its_last_heartbeat(db: Registry, path: Path) -> None:
    change(db, "attempts", f"run_id = {CRANE}", heartbeat_at="2026-03-05T10:01:25.000Z")

    assert of_run(path, "time_to_loss", "crane", loss=2.5)["seconds"] == 90


def test_an_adopted_run_says_where_its_time_begins(db: Registry, path: Path) -> None:
    adopt(db, KESTREL, 30)

    assert of_run(path, "time_to_loss", "kestrel", loss=1.9)["from_iteration"] == 30


def test_work_that_is_lost_twice_is_counted_once_for_each_attempt(db: Registry, path: Path) -> None:
    # to 60 in 120 s, from 50 to 100 in 50 s, and then from 25: 35 iterations are lost, and 50
    db.connection.execute(
        """
        INSERT INTO attempts (run_id, number, start_kind, from_iteration, to_iteration, started_at, ended_at, pid, host,
            heartbeat_at, device, environment, command)
        SELECT run_id, 3, 'exact', 25, 100, '2026-03-01T11:00:00.000Z', '2026-03-01T11:01:00.000Z', pid, host,
            heartbeat_at, device, environment, command
        FROM attempts WHERE run_id = 1 AND number = 2
        """
    )

    lost = {row["attempt"]: (row["iterations_lost"], row["seconds_lost"]) for row in asked(path, "lost_work")}
    assert lost == {1: (35, 70.0), 2: (50, 50.0)}
    assert of_run(path, "where_time_went", "heron")["seconds_done_again"] == 120.0


def test_the_trainings_of_an_imported_log_are_not_taken_for_interruptions(db: Registry, path: Path) -> None:
    change(db, "runs", "name = 'heron'", imported_from="training.log")

    assert asked(path, "lost_work") == []
    assert of_run(path, "where_time_went", "heron")["seconds_done_again"] is None
    assert [row["run"] for row in asked(path, "resumed")] == ["swift"]


def test_an_attempt_that_began_anew_did_not_resume(db: Registry, path: Path) -> None:
    change(db, "attempts", "run_id = 4 AND number = 2", start_kind="branch", from_iteration=50)
    change(db, "attempts", "run_id = 1 AND number = 2", start_note="first, second")

    (row,) = asked(path, "resumed")
    assert (row["run"], row["resumed"], row["begun_anew"], row["what_differed"]) == ("heron", 1, 0, "first, second")


def test_an_attempt_at_work_is_as_far_as_its_run(path: Path) -> None:
    (row,) = asked(path, "attempts", run="crane")

    assert (row["to_iteration"], row["end_reason"]) == (30, None)


# -- speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["by_setting", "speed_by_batch", "versions"])
def test_a_run_is_as_fast_as_the_median_of_its_reports_without_those_of_zero(
    db: Registry, path: Path, query: str
) -> None:
    put(db, CRANE, "tokens_per_second", {5: 40.0, 10: 60.0, 15: 1000.0, 20: 50.0, 25: 0.0, 30: None})

    # of 40, 50, 60 and 1,000
    assert [row["tokens_per_second"] for row in asked(path, query) if row["model"] == "models/large"] == [55.0]


@pytest.mark.parametrize("query", ["by_setting", "speed_by_batch", "versions"])
def test_a_run_that_failed_has_no_speed(db: Registry, path: Path, query: str) -> None:
    change(db, "runs", "name = 'crane'", status="failed")

    assert [row["tokens_per_second"] for row in asked(path, query) if row["model"] == "models/large"] in ([], [None])


def test_the_speeds_of_two_attempts_are_not_mixed(db: Registry, path: Path) -> None:
    put(db, HERON, "tokens_per_second", {10: 1.0, 50: 2.0, 60: 900.0, 70: 910.0, 100: 920.0})
    change(db, "attempts", "run_id = 1 AND number = 2", device="tpu")

    assert [row["tokens_per_second"] for row in asked(path, "speed_by_batch") if row["device"] == "tpu"] == [910.0]


def test_an_attempt_without_a_report_leaves_the_speed_of_the_one_before(db: Registry, path: Path) -> None:
    put(db, HERON, "tokens_per_second", {10: 1.0, 50: 2.0})
    change(db, "attempts", "run_id = 1 AND number = 2", device="tpu")
    change(db, "attempts", "run_id = 1 AND number = 1", device="npu")

    speeds = {row["device"]: row["tokens_per_second"] for row in asked(path, "speed_by_batch")}
    assert ("tpu" in speeds, speeds["npu"]) == (False, 1.5)


def test_only_the_last_twenty_five_reports_make_the_speed(db: Registry, path: Path) -> None:
    put(db, CRANE, "tokens_per_second", {number: 1.0 if number <= 35 else 9.0 for number in range(1, 61)})

    assert [row["tokens_per_second"] for row in asked(path, "speed_by_batch") if row["device"] == "cpu"] == [9.0]


def test_padding_is_a_mean_of_reports_and_not_the_newest(db: Registry, path: Path) -> None:
    put(db, HERON, "padding_share", {10: 0.3, 20: 0.3, 30: 0.0})

    assert of_run(path, "padding", "heron")["mean_percent"] == 20.0


# -- losses ---------------------------------------------------------------------------------------------------------


def clear_difference(db: Registry) -> None:
    """Make otter the best of its kind beyond doubt: the next is swift."""
    change(db, "runs", "name = 'otter'", best_validation_loss=1.2)


def verdict(path: Path) -> str:
    (row,) = asked(path, "significant")
    assert (row["best_run"], row["next_run"]) == ("otter", "swift")
    return str(row["is_better"])


@pytest.mark.parametrize(
    "changed",
    [
        {"validation_identity": "other rows"},
        {"validation_identity": None},
        {"val_batches": 5},
        {"batch_size": 8},
        {"seed": 1},
        {"mask_prompt": False},
        {"max_seq_length": 512},
    ],
)
def test_nothing_is_significant_where_other_rows_or_tokens_were_validated(
    db: Registry, path: Path, changed: dict[str, Any]
) -> None:
    clear_difference(db)
    configure(db, SWIFT, **changed)

    assert verdict(path) == "unknown"


def test_all_validation_rows_are_the_same_whatever_the_seed(db: Registry, path: Path) -> None:
    clear_difference(db)
    configure(db, OTTER, val_batches=-1)
    configure(db, SWIFT, val_batches=-1, seed=1, batch_size=8)

    assert verdict(path) == "yes"


@pytest.mark.parametrize(("loss", "said"), [(1.75 - 0.0832, "yes"), (1.75 - 0.0831, "no")])
def test_a_difference_is_significant_beyond_1_96_standard_errors(
    db: Registry, path: Path, loss: float, said: str
) -> None:
    # both errors are 0.03: 1.96 times their 0.0424 are 0.08316
    change(db, "runs", "name = 'otter'", best_validation_loss=loss)

    assert verdict(path) == said


@pytest.mark.parametrize(("value", "said"), [(0.25 + 0.0555, "yes"), (0.25 + 0.0554, "no")])
def test_a_gain_is_more_than_chance_beyond_1_96_standard_errors(
    db: Registry, path: Path, value: float, said: str
) -> None:
    # both errors are 0.02: 1.96 times their 0.02828 are 0.05544
    change(db, "scores", "evaluation_id = 3 AND metric = 'rouge_l'", value=value)

    assert [row["more_than_chance"] for row in asked(path, "gains") if row["run"] == "otter"][1] == said


def test_a_gain_on_other_rows_is_unknown(db: Registry, path: Path) -> None:
    change(db, "evaluations", "id = 1", data_sha256="hash of other data")

    assert {row["more_than_chance"] for row in asked(path, "gains")} == {"unknown"}


def test_a_branch_on_other_validation_rows_does_not_measure_the_same(db: Registry, path: Path) -> None:
    configure(db, SWIFT, seed=7)
    assert asked(path, "branches")[0]["measures_the_same"] == "no"

    configure(db, SWIFT, validation_identity=None)
    assert asked(path, "branches")[0]["measures_the_same"] == "unknown"


@pytest.mark.parametrize("query", ["learning_rates", "by_setting"])
def test_a_run_that_began_with_trained_weights_says_nothing_of_a_setting(db: Registry, path: Path, query: str) -> None:
    adopt(db, OTTER, 20)

    (row,) = [row for row in asked(path, query) if row.get("learning_rate", row.get("value")) == 1e-5][1:]
    assert row["lowest_loss"] == 1.8


def test_the_gap_is_between_losses_of_the_same_iteration(db: Registry, path: Path) -> None:
    put(db, HERON, "train_loss", {50: 1.9, 100: 1.5, 150: 0.1})

    assert of_run(path, "gap", "heron")["gap"] == pytest.approx(0.3)


def test_a_run_that_two_versions_worked_on_proves_none_of_them_worse(db: Registry, path: Path) -> None:
    def pairs() -> list[int]:
        return [row["pairs"] for row in asked(path, "versions") if row["batch_size"] == 4]

    assert pairs() == [0, 1]

    change(db, "attempts", "run_id = 1 AND number = 1", environment='{"versions": {"mlx": "0.32.2"}}')
    assert pairs() == [0, 0]


def test_models_of_one_path_that_differ_are_not_compared(db: Registry, path: Path) -> None:
    change(db, "runs", "name = 'otter'", model_identity="another one")

    assert [row["run"] for row in asked(path, "best_by_model")] == ["crane", "otter", "swift"]
    assert [row["best_run"] for row in asked(path, "significant")] == ["swift"]


# -- the rest -------------------------------------------------------------------------------------------------------


def test_batches_that_were_left_out_for_a_gradient_of_zero_are_told_apart(db: Registry, path: Path) -> None:
    registry.add_event(
        db,
        WREN,
        4,
        kind="skipped",
        level="warning",
        iteration=35,
        message="the gradient was zero, so the batch was left out: data/train.jsonl:9",
    )

    assert [(row["batches_left_out"], row["for_zeros"]) for row in asked(path, "not_finite")] == [(2, 1), (2, 1)]


def test_changed_answers_are_those_of_the_newest_evaluation_that_has_answers(db: Registry, path: Path) -> None:
    for identity, has_answers in ((4, True), (5, False)):
        db.connection.execute(
            f"""
            INSERT INTO evaluations (id, run_id, checkpoint_id, base_evaluation_id, model, data, data_sha256, kind,
                config, rows)
            SELECT {identity}, run_id, checkpoint_id, base_evaluation_id, model, data, data_sha256, kind, config, rows
            FROM evaluations WHERE id = 3
            """
        )
        if has_answers:
            db.connection.execute(
                f"INSERT INTO answers SELECT {identity}, row, prompt, expected, 'Rome.', scores "
                "FROM answers WHERE evaluation_id = 3 AND row = 1"
            )

    assert [row["answer"] for row in asked(path, "changed_answers", run="otter")] == ["Rome."]
    assert [row["answer"] for row in asked(path, "changed_answers")] == ["Rome."]


def test_the_newest_checkpoint_that_a_run_can_go_on_from_is_not_deletable(db: Registry, path: Path) -> None:
    change(db, "checkpoints", "run_id = 2 AND iteration = 100", state_pruned_at="2026-03-03T00:00:00.000Z")
    change(db, "checkpoints", "run_id = 2 AND iteration = 25", state_pruned_at="2026-03-03T00:00:00.000Z")

    rows = [row for row in asked(path, "deletable") if row["run"] == "otter"]
    assert [(row["iteration"], row["state_file"]) for row in rows] == [(25, None)]


def test_the_newest_checkpoint_stays_whatever_is_asked(path: Path) -> None:
    assert asked(path, "deletable", keep=0) == asked(path, "deletable", keep=1)


def test_runs_of_the_same_settings_stand_with_how_far_they_went(db: Registry, path: Path) -> None:
    change(db, "runs", "name = 'kestrel'", iteration=300)

    (row,) = asked(path, "same_settings")
    assert (row["fewest_iterations"], row["most_iterations"]) == (100, 300)


def test_the_losses_of_a_tag_are_not_mixed_over_models(db: Registry, path: Path) -> None:
    db.connection.execute("INSERT INTO tags VALUES (?, 'baseline')", (CRANE,))

    rows = [row for row in asked(path, "tags") if row["tag"] == "baseline"]
    assert [(row["model"], row["mean_loss"]) for row in rows] == [("models/large", 2.5), ("models/small", 1.81)]
