"""`run.import` of what mlx_lm.lora printed: every form of a log, and what no log can say."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
from commands import ROOT, copy_writable
from folders_to_import import BEGINNING, WHOLE, Typed, ask, curve, everything, folder, report, take, validation, write
from known_runs import new_run, settings, train

from mlxops import registry

# logs -----------------------------------------------------------------------------------------------------------------


def test_a_log_is_a_run_with_every_number_it_printed() -> None:
    facts = take(write("training.log", WHOLE))

    (run,) = ask("SELECT * FROM run_summary")
    assert (facts["name"], run["status"], run["iteration"], run["trained_tokens"]) == (
        "training",
        "completed",
        20,
        1000,
    )
    assert (run["best_validation_loss"], run["best_iteration"], run["tokens_per_second"]) == (2.25, 20, 100.0)
    assert curve("training", "train_loss") == [(10, 2.5), (20, 2.125)]
    assert curve("training", "learning_rate") == [(10, 1e-5), (20, 1e-5)]
    assert curve("training", "peak_memory") == [(10, 3.4e9), (20, 3.4e9)]
    # two validations of 1.5 s, and ten iterations at two a second before each report
    assert [row["elapsed_seconds"] for row in ask("SELECT * FROM metric WHERE name = 'train_loss'")] == [6.5, 13.0]


def test_a_log_that_ends_before_its_target_is_interrupted() -> None:
    take(write("training.log", BEGINNING.format(100) + report(10, 2.5)))

    assert ask("SELECT status, target_iterations FROM runs") == [{"status": "interrupted", "target_iterations": 100}]


def test_a_log_without_a_target_is_complete_where_it_says_so() -> None:
    take(write("one.log", report(10, 2.5)))
    take(write("two.log", report(10, 2.5) + "Saved final weights to adapters/adapters.safetensors.\n"))

    assert {row["name"]: row["status"] for row in ask("SELECT * FROM runs")} == {
        "one": "interrupted",
        "two": "completed",
    }


def test_a_loss_that_is_not_finite_is_null_and_counted() -> None:
    take(write("training.log", report(10, 2.5) + report(20, "nan")))

    assert curve("training", "train_loss") == [(10, 2.5), (20, None)]
    assert ask("SELECT not_finite FROM series WHERE not_finite") == [{"not_finite": 1}]


def test_importing_again_changes_nothing_where_nothing_is_new() -> None:
    log = write("training.log", WHOLE)
    take(log)
    before = everything()

    again = take(log)

    assert (again["is_new"], sum(again["changed"].values())) == (False, 0)
    assert everything() == before


def test_a_log_that_grows_adds_what_is_new() -> None:
    log = write("training.log", BEGINNING.format(30) + validation(1, 3.0) + report(10, 2.5) + report(20, 2.25)[:30])
    take(log, name="mine")
    with log.open("a") as file:
        file.write(report(20, 2.25)[30:] + report(30, 2.0))

    again = take(log)

    assert (again["name"], again["is_new"]) == ("mine", False)
    assert curve("mine", "train_loss") == [(10, 2.5), (20, 2.25), (30, 2.0)]
    assert ask("SELECT status, iteration FROM runs") == [{"status": "completed", "iteration": 30}]
    assert len(ask("SELECT 1 FROM attempts")) == 1
    assert len(ask("SELECT 1 FROM events WHERE kind = 'imported'")) == 2


def test_another_training_in_the_same_file_is_another_run() -> None:
    log = write("training.log", WHOLE)
    take(log)
    log.write_text(BEGINNING.format(10) + validation(1, 4.0) + report(10, 3.5))

    assert take(log)["name"] == "training-2"
    assert curve("training", "train_loss") == [(10, 2.5), (20, 2.125)]


def test_a_training_that_is_back_in_its_file_is_its_run_again() -> None:
    log = write("training.log", WHOLE)
    other = BEGINNING.format(10) + validation(1, 4.0) + report(10, 3.5)

    names = []
    for text in (WHOLE, other, WHOLE, other):
        log.write_text(text)
        names.append(take(log)["name"])

    assert names == ["training", "training-2", "training", "training-2"]


@pytest.mark.parametrize(
    "line",
    [
        "Iter 20: Train loss 2.0, It/sec 1.0, Peak mem 1e300 GB", "Iter 99999999999999999999999: Val loss 2.0",
        "Iter 20: Val loss 2.0, Val took 1e30s", "Iter 20: Train loss 2.0, It/sec 1e-30, Tokens/sec 1e-300",
        "Iter 20: Train loss 2.0, It/sec -1.0, Tokens/sec -1.0", "Iter 20: Train loss 2.0, Trained Tokens nan",
        "    20    2.0 ▼    1e300    1e300k", "│  max seq  many  │", "│  optimizer  adamw · lr 1.2.3  │",
        "train  1% ,/,", "Iter 20: Train loss 1e999, Learning Rate 1e999",
    ],
)  # fmt: skip
def test_numbers_past_belief_stop_no_import(line: str, mlxops: Typed) -> None:
    write("training.log", f"{report(10, 2.5)}{line}\n{report(30, 2.0)}")

    code, _, err = mlxops("run.import training.log")

    assert (code, err) == (0, "")
    assert curve("training", "train_loss")[-1] == (30, 2.0)
    (run,) = ask("SELECT iteration, seconds FROM run_summary")
    assert (run["iteration"], run["seconds"] < 1000) == (30, True)
    assert ask("SELECT 1 FROM metric WHERE name LIKE '%per_second' AND value <= 0") == []
    assert mlxops("run.show training")[0] == 0


def test_a_target_that_the_log_does_not_say_is_not_known(mlxops: Typed) -> None:
    write("training.log", report(10, 2.5))

    code, out, _ = mlxops("run.import training.log")

    assert code == 0
    assert "10 iterations, target not known, interrupted" in out
    assert take("training.log")["target_iterations"] is None
    assert json.loads(ask("SELECT config FROM runs")[0]["config"])["imported"]["is_target_known"] is False


def test_the_command_to_repeat_an_import_is_there_where_its_model_and_data_are_known(mlxops: Typed) -> None:
    write("one.log", report(10, 2.5))
    write("two.log", f"│  model  models/some  │\n│  dataset  data  │\n{report(10, 2.5)}")
    for name in ("one", "two"):
        mlxops(f"run.import {name}.log")

    (one, out_of_one), (two, out_of_two) = (
        (json.loads(mlxops(f"run.show {name} --json")[1])["command"], mlxops(f"run.show {name}")[1])
        for name in ("one", "two")
    )

    assert (one, "once more" in out_of_one, "once more" in out_of_two) == (None, False, True)
    assert {"--model", "models/some", "--no-mask-prompt"} <= set(shlex.split(two))


def test_latest_is_a_run_that_was_trained_here_where_there_is_one() -> None:
    take(write("training.log", WHOLE))
    with registry.open_registry(settings().project.registry_path) as db:
        before = registry.find_run(db, "latest")["name"]
        train(db, "heron")
    take(write("other.log", WHOLE))
    with registry.open_registry(settings().project.registry_path) as db:
        assert (before, registry.find_run(db, "latest")["name"]) == ("training", "heron")


def test_a_file_that_is_no_text_is_no_log(mlxops: Typed) -> None:
    take(write("training.log", WHOLE))

    code, _, err = mlxops("run.import runs.db")

    assert (code, "no line of mlx_lm.lora" in err) == (2, True)
    assert len(ask("SELECT 1 FROM runs")) == 1


def test_one_of_a_kind_is_said_as_one() -> None:
    take(write("training.log", validation(1, 3.0) + report(10, 2.5)))

    assert (
        "1 report, 1 validation, 0 checkpoints"
        in ask("SELECT message FROM events WHERE kind = 'imported'")[0]["message"]
    )


def test_tags_notes_and_names_outlive_another_import(mlxops: Typed) -> None:
    log = write("training.log", WHOLE)
    take(log, name="mine")
    mlxops("run.tag mine --add good")
    with log.open("a") as file:
        file.write(report(30, 2.0))

    take(log)

    assert [(row["name"], row["tags"]) for row in ask("SELECT * FROM run_summary")] == [("mine", "good")]


def test_trainings_one_after_the_other_are_attempts_and_the_last_has_the_points() -> None:
    first = validation(1, 3.0) + report(10, 2.5) + report(20, 2.25) + report(30, 2.0)
    take(
        write(
            "training.log", BEGINNING.format(30) + first + BEGINNING.format(20) + validation(1, 2.5) + report(10, 1.5)
        )
    )

    rows = ask("SELECT from_iteration, to_iteration, end_reason FROM attempts ORDER BY number")
    assert [tuple(row.values()) for row in rows] == [(0, 30, "finished"), (0, 10, "unknown")]
    assert curve("training", "train_loss") == [(10, 1.5)]
    (event,) = ask("SELECT detail FROM events WHERE kind = 'imported'")
    assert [each["train_loss"] for each in json.loads(event["detail"])["trainings"]] == [2.0, 1.5]


def test_numbers_that_fall_back_begin_an_attempt_without_any_other_sign() -> None:
    take(
        write("training.log", report(10, 2.5) + report(20, 2.25) + report(30, 2.0) + report(20, 2.2) + report(30, 1.9))
    )

    rows = ask("SELECT from_iteration, to_iteration FROM attempts ORDER BY number")
    assert [tuple(row.values()) for row in rows] == [(0, 30), (19, 30)]
    assert curve("training", "train_loss") == [(10, 2.5), (20, 2.2), (30, 1.9)]


def test_a_line_that_stands_there_twice_counts_once() -> None:
    twice = [line for line in (validation(1, 3.0), report(10, 2.5), report(20, 2.0)) for _ in range(2)]

    facts = take(write("training.log", "".join(twice)))

    assert (facts["attempts"], facts["reports"], facts["validations"]) == (1, 2, 1)


def test_a_training_from_an_adapter_is_warm() -> None:
    beginning = "Loading pretrained model\nLoading fine-tuned weights from old/adapters.safetensors\n"
    take(write("training.log", beginning + report(10, 2.5)))

    assert [row["start_kind"] for row in ask("SELECT start_kind FROM attempts")] == ["warm"]


def test_a_log_without_any_line_of_mlx_lm_says_what_was_looked_for(mlxops: Typed) -> None:
    write("other.log", "epoch 1 of 3\nloss 2.5\n")

    code, _, err = mlxops("run.import other.log")

    assert code == 2
    assert "epoch 1 of 3" in err
    assert "Iter 10: Train loss" in err
    assert not Path("runs.db").exists()


def test_names_are_made_to_fit_and_unlike_all_others() -> None:
    write("one/a:b.log", WHOLE)
    write("two/a:b.log", WHOLE)
    write("latest.log", WHOLE)

    names = [take(source)["name"] for source in ("one/a:b.log", "two/a:b.log", "latest.log")]

    assert names == ["a-b", "a-b-2", "imported"]


@pytest.mark.parametrize("source", ["pipe", "old/adapters.safetensors", "old/adapter_config.json", "nowhere", "data"])
def test_what_is_neither_folder_nor_log_is_refused(source: str, mlxops: Typed) -> None:
    os.mkfifo("pipe")
    folder()
    Path("data").mkdir()

    assert mlxops(f"run.import {source}")[0] == 2
    assert not Path("runs.db").exists()


def test_a_name_that_is_taken_is_refused(mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        train(db, "heron")
    write("training.log", WHOLE)

    code, _, err = mlxops("run.import training.log --name heron")

    assert code == 3
    assert "heron" in err


def test_a_link_to_an_imported_log_is_the_same_run() -> None:
    log = write("logs/training.log", WHOLE)
    Path("link.log").symlink_to(log)

    assert take("link.log")["name"] == take(log)["name"]
    assert len(ask("SELECT 1 FROM runs")) == 1


def test_an_import_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = write("training.log", WHOLE)
    take(log)
    before = everything()
    with registry.open_registry(settings().project.registry_path) as db:
        db.connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no more events'); END"
        )
    with log.open("a") as file:
        file.write(report(30, 1.0))

    with pytest.raises(Exception, match="no more events"):
        take(log)

    assert everything() == before


def test_runs_of_the_first_schema_are_no_imported_ones(tmp_path: Path) -> None:
    first = copy_writable(ROOT / "db", tmp_path / "first")
    shutil.rmtree(first / "views")
    for migration in sorted((first / "migrations").iterdir())[1:]:
        migration.unlink()
    path = settings().project.registry_path
    with registry.open_registry(path, sql=first) as db:
        new_run(db, "heron")

    registry.open_registry(path).close()

    assert ask("SELECT name, imported_from FROM run_summary") == [{"name": "heron", "imported_from": None}]


def test_reading_a_log_keeps_no_other_writer_waiting() -> None:
    with registry.open_registry(settings().project.registry_path) as db, registry.gather_points(db) as points:
        points.add(1, 0, {"train_loss": 1.0})
        points.forget(beyond=5)
        with registry.open_registry(settings().project.registry_path) as other:
            other.connection.execute("PRAGMA busy_timeout=0")
            train(other, "heron")
        points.close()

    assert [row["name"] for row in ask("SELECT name FROM runs")] == ["heron"]
