"""Trainings of mlx_lm.lora in the registry: folders and logs, read again and again, and never written to."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import training_runs
from commands import ROOT
from known_runs import folder_of, new_run, settings, train
from ready_programs import run_forked

from mlxops import registry
from mlxops.config import ImportRunConfig
from mlxops.errors import BadRequest, MlxopsError
from mlxops.jobs.run.imports import run as import_run

Typed = Callable[[str], tuple[int, str, str]]

BEGINNING = "Loading pretrained model\nStarting training..., iters: {}\n"
SETTINGS = {
    "model": "models/some", "data": "data", "fine_tune_type": "dora", "iters": 25, "num_layers": 4, "batch_size": 2,
    "learning_rate": 0.0003, "lora_parameters": {"rank": 16, "scale": 10.0, "dropout": 0.1}, "seed": 7,
}  # fmt: skip


def report(iteration: int, loss: float | str) -> str:
    return (
        f"Iter {iteration}: Train loss {loss}, Learning Rate 1.000e-05, It/sec 2.000, Tokens/sec 100.000, "
        f"Trained Tokens {iteration * 50}, Peak mem 3.400 GB\n"
    )


def validation(iteration: int, loss: float) -> str:
    return f"Iter {iteration}: Val loss {loss}, Val took 1.500s\n"


WHOLE = (
    f"{BEGINNING.format(20)}{validation(1, 3.0)}{report(10, 2.5)}{validation(20, 2.25)}{report(20, 2.125)}"
    "Iter 20: Saved adapter weights to adapters/adapters.safetensors and adapters/0000020_adapters.safetensors.\n"
)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def adapter(path: Path, value: float) -> None:
    safetensors.numpy.save_file({"layers.0.lora_a": np.full((4, 2), value, np.float32)}, path)


def folder(name: str = "old", *, numbered: tuple[int, ...] = (10, 20), final: float = 25, **changed: Any) -> Path:
    """An adapter folder of mlx_lm.lora; the arrays of an iteration hold its number."""
    made = Path(name)
    made.mkdir(parents=True)
    (made / "adapter_config.json").write_text(json.dumps({**SETTINGS, **changed}))
    for iteration in numbered:
        adapter(made / f"{iteration:07d}_adapters.safetensors", iteration)
    adapter(made / "adapters.safetensors", final)
    return made


def take(source: str | Path, name: str | None = None) -> dict[str, Any]:
    return asdict(import_run.import_run(settings(), ImportRunConfig(source=str(source), name=name)))


def ask(sql: str) -> list[dict[str, Any]]:
    with registry.open_read_only(settings().project.registry_path) as db:
        return db.rows(sql)


def curve(run: str, name: str) -> list[tuple[int, float | None]]:
    rows = ask(f"SELECT iteration, value FROM metric WHERE run = '{run}' AND name = '{name}' ORDER BY iteration")
    return [(row["iteration"], row["value"]) for row in rows]


def everything() -> dict[str, list[dict[str, Any]]]:
    tables = ("runs", "attempts", "metrics", "series", "checkpoints", "events")
    return {name: ask(f"SELECT * FROM {name}") for name in tables}


# what mlx_lm.lora really writes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project in which the installed mlx_lm.lora trained 9 iterations into `old`, its print in `old/train.log`."""
    project = training_runs.make_project(tmp_path_factory.mktemp("trained") / "project", tiny_model)
    typed = "--train --iters 9 --batch-size 2 --num-layers 2 --save-every 4 --steps-per-report 3 --steps-per-eval 4"
    here = Path.cwd()
    os.chdir(project)
    try:
        code, out, err = run_forked(
            *("-m", "mlx_lm", "lora", "--model", "models/tiny", "--data", "data", "--adapter-path", "old"),
            *typed.split(),
        )
    finally:
        os.chdir(here)
    assert code == 0, out + err
    (project / "old" / "train.log").write_text(out)
    return project


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of that project, gone into."""
    copied = Path(shutil.copytree(trained, tmp_path / "trained"))
    monkeypatch.chdir(copied)
    return copied


@pytest.mark.slow
def test_a_folder_of_todays_mlx_lm_is_a_run_with_its_curves_and_checkpoints(project: Path) -> None:
    facts = take("old")

    (run,) = ask("SELECT * FROM run_summary")
    assert (facts["name"], run["status"], run["iteration"], run["target_iterations"]) == ("old", "completed", 9, 9)
    assert (run["model"], run["data"], run["imported_from"]) == ("models/tiny", "data", "old")
    assert [iteration for iteration, _ in curve("old", "train_loss")] == [3, 6, 9]
    assert [iteration for iteration, _ in curve("old", "validation_loss")] == [1, 4, 8, 9]
    assert {row["iteration"]: row["is_offered"] for row in ask("SELECT * FROM checkpoint_summary")} == {
        4: 0,
        8: 0,
        9: 1,
    }
    assert run["best_validation_loss"] == min(value for _, value in curve("old", "validation_loss") if value)


@pytest.mark.slow
def test_the_folder_is_left_as_it_is(project: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("old").iterdir()}

    take("old")

    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("old").iterdir()} == before


@pytest.mark.slow
def test_every_task_that_shows_runs_shows_an_imported_one(project: Path, mlxops: Typed) -> None:
    shutil.copytree("old", "other")
    take("old")
    take("other")

    shown = {
        typed: mlxops(typed)
        for typed in (
            "runs", "run.show old", "run.compare old,other", "run.compare old,other --by time",
            "monitor --run old --once", "run.export --run old", "run.export --what all --format json",
            "checkpoints", "checkpoints --verify",
            "train.stop old", "debug-checkpoints old",
        )
    }  # fmt: skip

    assert {typed: code for typed, (code, _, _) in shown.items() if code} == {}
    assert "completed, imported" in shown["runs"][1]
    assert "imported from" in shown["run.show old"][1]
    assert "--adopt old continues it" in shown["checkpoints"][1]


def files_of(path: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "in_yaml", ["", "mlxops: {num_layers: 4, learning_rate: 0.01, lora_rank: 16, batch_size: 1}\n"]
)
def test_the_command_that_an_import_prints_trains_beside_it_with_the_adapters_settings(
    in_yaml: str, project: Path
) -> None:
    write("invoke.yaml", in_yaml)
    code, out, err = run_forked("-m", "mlxops", "run.import", "old", "--json")
    assert code == 0, err
    before = files_of(Path("old"))
    words = shlex.split(json.loads(out)["goes_on"])[2:]

    ended = training_runs.lora(project, *words, "--iters", "11")

    assert ended.code == 0, ended.said
    (run,) = ask("SELECT * FROM runs WHERE imported_from IS NULL")
    config = json.loads(run["config"])
    assert run["adapter_path"] == f"adapters/{run['name']}"
    wanted = {
        "num_layers": 2, "learning_rate": 1e-5, "lora_rank": 8, "batch_size": 2, "mask_prompt": False,
    }  # fmt: skip
    assert {name: config[name] for name in wanted} == wanted
    assert files_of(Path("old")) == before
    assert take("old")["changed"] == {"attempts": 0, "points": 0, "checkpoints": 0}


@pytest.mark.slow
def test_no_run_is_made_in_a_folder_that_was_imported(project: Path) -> None:
    shutil.copytree("old", "adapters/ext")
    take("adapters/ext")
    before = files_of(Path("adapters/ext"))

    for place in (("--adapter-path", "adapters/ext"), ("--name", "ext")):
        ended = training_runs.lora(project, "--adopt", "adapters/ext", *place, "--model", "tiny", "--iters", "11")

        assert (ended.code, "was imported as the run 'ext'" in ended.said, "hint:" in ended.said) == (3, True, True)
    assert files_of(Path("adapters/ext")) == before


@pytest.mark.slow
def test_a_training_never_takes_an_imported_run_for_one_to_go_on_with(project: Path) -> None:
    take("old")

    small = ("--model", "tiny", "--iters", "2", "--num-layers", "2", "--batch-size", "2")
    refused = training_runs.lora(project, *small, "--adapter-path", "old")
    branch = training_runs.lora(project, *small, "--branch", "--from", "old")
    new = training_runs.lora(project, *small)

    assert (branch.code, "--adopt DIR" in branch.said) == (2, True), branch.said
    assert refused.code == 3
    assert "--adopt" in refused.said
    assert new.code == 0, new.said
    assert [row["imported_from"] for row in ask("SELECT imported_from FROM runs ORDER BY id")] == ["old", None]


# folders --------------------------------------------------------------------------------------------------------------


def test_settings_have_the_names_they_have_here(mlxops: Typed) -> None:
    take(folder())

    (run,) = ask("SELECT kind, config FROM runs")
    config = json.loads(run["config"])
    assert run["kind"] == "dora"
    assert {name: config[name] for name in ("lora_rank", "lora_scale", "learning_rate", "iters", "seed")} == {
        "lora_rank": 16, "lora_scale": 10.0, "learning_rate": 0.0003, "iters": 25, "seed": 7,
    }  # fmt: skip
    assert config["imported"]["settings"]["lora_parameters"]["rank"] == 16


def test_settings_of_another_version_are_kept_as_far_as_they_are_the_same() -> None:
    take(folder(lora_layers=3, num_layers=None, adapter_file="x.npz", lora_parameters={"rank": 4, "alpha": 16}))

    config = json.loads(ask("SELECT config FROM runs")[0]["config"])
    assert (config["num_layers"], config["lora_rank"], config["batch_size"]) == (3, 4, 2)


def test_the_offered_file_is_of_the_iteration_whose_file_it_equals() -> None:
    facts = take(folder(final=20))

    (run,) = ask("SELECT status, iteration FROM runs")
    assert (run["status"], run["iteration"], facts["checkpoints"]) == ("interrupted", 20, 2)
    assert [row["iteration"] for row in ask("SELECT * FROM checkpoint_summary WHERE is_offered")] == [20]


def test_an_offered_file_that_is_older_than_the_settings_has_no_iteration() -> None:
    made = folder()
    os.utime(made / "adapters.safetensors", (1_000_000, 1_000_000))

    facts = take(made)

    assert facts["iteration"] == 20
    assert any("adapters.safetensors" in note for note in facts["notes"])


def test_an_offered_file_has_no_iteration_while_the_log_says_that_the_last_was_not_reached() -> None:
    made = folder()
    (made / "train.log").write_text(BEGINNING.format(25) + report(10, 2.5) + report(20, 2.25))

    facts = take(made)

    assert (facts["iteration"], facts["status"], facts["checkpoints"]) == (20, "interrupted", 2)


def test_files_of_a_longer_training_before_are_left_out() -> None:
    made = folder(numbered=(10, 20), final=10)
    os.utime(made / "0000020_adapters.safetensors", (1_000_000, 1_000_000))

    facts = take(made)

    assert (facts["iteration"], [row["iteration"] for row in ask("SELECT iteration FROM checkpoints")]) == (10, [10])


OLD = (1_000_000, 1_000_000)


def test_weights_older_than_the_settings_are_of_another_training_the_offered_file_too(mlxops: Typed) -> None:
    made = folder(numbered=(10, 20), final=20, iters=30)
    for path in made.glob("*.safetensors"):
        os.utime(path, OLD)
    adapter(made / "0000005_adapters.safetensors", 5)

    facts = take(made)

    assert (facts["iteration"], facts["status"], facts["checkpoints"]) == (5, "interrupted", 1)
    listed = json.loads(mlxops("checkpoints --run old --json")[1])
    assert [item["iteration"] for item in listed["groups"][0]["items"]] == [5]


def test_weights_never_come_further_than_the_log_of_their_training() -> None:
    made = folder(numbered=(10, 20), final=20, iters=20)
    write("old/train.log", BEGINNING.format(20) + validation(1, 3.0) + report(5, 2.5))

    facts = take(made)

    assert (facts["iteration"], facts["status"], facts["checkpoints"]) == (5, "interrupted", 0)
    assert facts["goes_on"] is None


def test_a_folder_copied_within_a_minute_keeps_the_weights_that_were_copied_first() -> None:
    made = folder()
    now = (made / "adapter_config.json").stat().st_mtime
    os.utime(made / "0000010_adapters.safetensors", (now - 20, now - 20))

    assert take(made)["checkpoints"] == 3


def test_the_command_that_goes_on_names_the_weights_of_this_training_alone() -> None:
    made = folder(numbered=(10,), final=900, lora_parameters={"rank": 2, "scale": 10.0, "dropout": 0.0})
    os.utime(made / "adapters.safetensors", OLD)

    assert "--adopt old/0000010_adapters.safetensors" in take(made)["goes_on"]


def test_files_past_the_target_are_of_another_training_and_left_out() -> None:
    facts = take(folder(numbered=(10, 900)))

    assert [row["iteration"] for row in ask("SELECT iteration FROM checkpoints ORDER BY 1")] == [10, 25]
    assert any("0000900_adapters.safetensors" in note for note in facts["notes"])


def test_a_half_written_file_is_no_checkpoint() -> None:
    made = folder()
    half = made / "0000020_adapters.safetensors"
    half.write_bytes(half.read_bytes()[:-4])

    facts = take(made)

    assert [row["iteration"] for row in ask("SELECT iteration FROM checkpoints ORDER BY 1")] == [10, 25]
    assert any("0000020_adapters.safetensors" in note for note in facts["notes"])


def test_checkpoints_have_the_losses_that_the_log_has_at_them() -> None:
    made = folder(iters=20, final=20)
    (made / "training.log").write_text(WHOLE)

    take(made)

    rows = ask("SELECT iteration, train_loss, validation_loss, is_best FROM checkpoint_summary ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [(10, 2.5, None, 0), (20, 2.125, 2.25, 1)]


def test_times_come_from_the_files() -> None:
    made = folder()
    for name, time in (("adapter_config.json", 1_000_000), ("0000010_adapters.safetensors", 1_000_300)):
        os.utime(made / name, (time, time))
    for name in ("0000020_adapters.safetensors", "adapters.safetensors"):
        os.utime(made / name, (1_000_600, 1_000_600))

    take(made)

    (run,) = ask("SELECT created_at, updated_at, seconds FROM run_summary")
    assert tuple(run.values()) == ("1970-01-12T13:46:40.000Z", "1970-01-12T13:56:40.000Z", 600.0)


def test_a_log_says_how_long_a_training_took_and_the_weights_when_it_ended() -> None:
    made = folder(iters=20, final=20)
    log = write("old/train.log", WHOLE)
    os.utime(made / "adapter_config.json", OLD)
    for path in made.glob("*.safetensors"):
        os.utime(path, (2_000_000, 2_000_000))
    # what neither the settings nor the log is of, and a log that was copied
    (made / "other.safetensors").write_bytes(b"")
    os.utime(log, (30_000_000, 30_000_000))

    take(made)

    (run,) = ask("SELECT updated_at, seconds FROM run_summary")
    assert (run["updated_at"], run["seconds"]) == ("1970-01-24T03:33:20.000Z", 13.0)


def test_a_log_that_is_gone_takes_nothing_with_it() -> None:
    made = folder(iters=20, final=20)
    log = write("old/train.log", WHOLE)
    take(made)
    before = everything()
    log.unlink()

    again = take(made)

    assert everything() == before
    assert sum(again["changed"].values()) == 0
    assert any("its log is gone" in note for note in again["notes"])


@pytest.mark.parametrize(
    ("changed", "lost"),
    [({"iters": 10**26}, "iters"), ({"data": "\ud800"}, ""), ({"learning_rate": "x"}, "learning_rate"),
     ({"batch_size": float("inf")}, "batch_size")],
)  # fmt: skip
def test_settings_that_no_training_has_are_left_out(changed: dict[str, Any], lost: str, mlxops: Typed) -> None:
    folder(lora_parameters={"rank": 2, "scale": 10.0, "dropout": 0.0}, **changed)

    code, out, err = mlxops("run.import old --json")

    assert (code, err) == (0, "")
    assert lost not in json.loads(ask("SELECT config FROM runs")[0]["config"])
    goes_on = json.loads(out)["goes_on"]
    assert "--learning-rate x" not in goes_on
    assert "inf" not in goes_on
    assert mlxops("run.show old")[0] == 0


def test_a_number_in_a_name_that_no_training_reaches_is_none() -> None:
    made = folder()
    adapter(made / f"{'9' * 23}_adapters.safetensors", 1)

    assert take(made)["iteration"] == 25


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"peft_type": "LORA", "r": 4, "base_model_name_or_path": "someone/base"}, "adapter_model.safetensors"),
        ({"r": 4, "lora_alpha": 8}, "adapter_model.bin"),
        ({"peft_type": "LORA"}, "adapters.safetensors"),
    ],
)
def test_a_folder_of_peft_is_no_run_to_import(settings: dict[str, Any], weights: str, mlxops: Typed) -> None:
    made = Path("theirs")
    made.mkdir()
    adapter(made / weights, 1)
    (made / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")

    code, _, err = mlxops("run.import theirs")

    assert (code, "holds an adapter of PEFT" in err, "merge_and_unload" in err) == (2, True, True), err
    assert json.loads(mlxops("runs --json")[1]) == []


def test_names_that_are_no_utf8_are_refused_or_left_out(mlxops: Typed) -> None:
    latin = os.fsdecode(b"caf\xe9.log")
    write(latin, WHOLE)
    made = folder(iters=20, final=20)
    write(f"old/{latin}", WHOLE)
    adapter(made / os.fsdecode(b"adapters_15_\xe9.safetensors"), 15)

    with pytest.raises(BadRequest, match="no UTF-8"):
        take(latin)
    facts = take(made)
    assert (facts["log"], facts["checkpoints"], sum("UTF-8" in note for note in facts["notes"])) == (None, 2, 2)


def test_an_own_runs_folder_is_never_advised_to_import(heron: Path) -> None:
    with pytest.raises(MlxopsError) as refused:
        take(".")

    assert "heron" not in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_said_and_stays_on_record() -> None:
    made = folder(iters=20, final=20)
    take(made)
    for path in (write("old/training.log", WHOLE), made / "0000010_adapters.safetensors"):
        path.chmod(0)
    typed = "import sys, training_runs; training_runs.obey_permissions(); from mlxops.__main__ import program"

    code, out, err = run_forked(
        *("-c", f"{typed}; sys.argv = ['mlxops', 'run.import', 'old', '--json']; program.run()"),
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )

    assert code == 0, err
    notes = json.loads(out)["notes"]
    assert any("training.log' cannot be read" in note for note in notes)
    assert any("0000010_adapters.safetensors may not be read" in note for note in notes)
    assert [row["status"] for row in ask("SELECT status FROM checkpoints")] == ["whole", "whole"]


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
    first = Path(shutil.copytree(ROOT / "db", tmp_path / "first"))
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


# runs of ours, and what leaves imported ones alone --------------------------------------------------------------------


@pytest.fixture
def heron() -> Path:
    """The folder of `heron`, a run of ours."""
    with registry.open_registry(settings().project.registry_path) as db:
        return folder_of(db, train(db, "heron", [(10, 3.0)]))


def test_a_folder_of_ours_is_named_and_not_imported(heron: Path, mlxops: Typed) -> None:
    code, out, _ = mlxops(f"run.import '{heron}'")

    assert code == 0
    assert "heron" in out
    assert len(ask("SELECT 1 FROM runs")) == 1


def test_a_log_of_ours_is_named_wherever_it_is(heron: Path) -> None:
    (heron / "train.log").write_text("iteration 10/12  loss 5.929\n")
    printed = "run {} in adapters/heron: new run\niteration 10/12  loss 5.929\n"

    assert take(heron / "train.log")["name"] == "heron"
    assert take(write("nohup.out", printed.format("heron"))) == {
        "name": "heron", "is_own": True, "is_new": False, "source": "nohup.out", "notes": [],
    }  # fmt: skip
    with pytest.raises(BadRequest, match="does not know"):
        take(write("other.out", printed.format("wren")))


def test_a_folder_of_ours_that_the_registry_does_not_know_is_refused(heron: Path) -> None:
    Path("runs.db").unlink()

    with pytest.raises(BadRequest, match="does not know"):
        take(heron)


def test_deleting_an_imported_run_leaves_its_files(mlxops: Typed) -> None:
    made = folder()
    (made / "train.log").write_text(WHOLE)
    take(made)
    take(write("alone.log", WHOLE))
    before = sorted(made.iterdir())

    code, out, _ = mlxops("run.delete old,alone --yes")

    assert (code, ask("SELECT 1 FROM runs")) == (0, [])
    assert "old stays: it was imported" in out
    assert sorted(made.iterdir()) == before
    assert Path("alone.log").exists()


def test_pruning_leaves_imported_runs_out(mlxops: Typed) -> None:
    made = folder()
    take(made)
    before = sorted(made.iterdir())

    of_all, of_one = mlxops("checkpoints --prune --keep-last 1 --yes"), mlxops("checkpoints --prune --run old --yes")

    assert (of_all[0], of_one[0]) == (0, 3)
    assert sorted(made.iterdir()) == before
    assert ask("SELECT status FROM checkpoints WHERE status <> 'whole'") == []


def test_an_imported_run_offers_what_its_folder_has(mlxops: Typed) -> None:
    made = folder()
    take(made)
    before = (made / "adapters.safetensors").read_bytes()

    code, _, err = mlxops("checkpoints --use 10 --run old")

    assert code == 3
    assert "--adopt old" in err
    assert (made / "adapters.safetensors").read_bytes() == before


def test_verifying_an_imported_run_reads_and_records(mlxops: Typed) -> None:
    made = folder()
    take(made)
    adapter(made / "0000010_adapters.safetensors", 11)

    code, _, _ = mlxops("checkpoints --verify --run old")

    assert code == 1
    assert {row["iteration"]: row["status"] for row in ask("SELECT * FROM checkpoints")}[10] == "corrupt"


def test_what_can_be_deleted_are_never_imported_files(mlxops: Typed) -> None:
    take(folder())

    code, out, _ = mlxops("sql @deletable --json")

    assert (code, json.loads(out)) == (0, [])


def test_an_imported_run_cannot_take_the_name_of_a_folder_that_comes_back(heron: Path) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        registry.remove_runs(db, [registry.find_run(db, "heron")["id"]])
    take(write("training.log", WHOLE), name="heron")

    recovered = recover_all()

    assert [row["imported_from"] for row in recovered] == ["training.log", None]
    assert recovered[1]["name"] != "heron"


def recover_all() -> list[dict[str, Any]]:
    """The runs after the folders in `adapters/` were given their rows again."""
    from mlxops.jobs.train import recover

    project = settings().project
    with registry.open_registry(settings().project.registry_path) as db:
        own = [row for row in registry.candidate_runs(db) if row["imported_from"] is None]
        for unknown in recover.unknown_folders(project, own, None):
            recover.take(project, db, unknown)
    return ask("SELECT name, imported_from FROM runs ORDER BY id")


# the program ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["train-monitor", "monitor"])
def test_the_monitor_imports_a_log_and_shows_its_run(task: str, mlxops: Typed) -> None:
    write("training.log", WHOLE)

    code, out, err = mlxops(f"{task} --log-file training.log --once")

    assert (code, err) == (0, "")
    assert "training" in out
    assert "2.125" in out


def test_json_says_what_was_read(mlxops: Typed) -> None:
    write("training.log", WHOLE)

    code, out, _ = mlxops("run.import training.log --json")

    facts = json.loads(out)
    assert (code, facts["name"], facts["reports"], facts["validations"]) == (0, "training", 2, 2)


@pytest.mark.slow
def test_inv_takes_the_source_as_a_word(inv: Typed) -> None:
    write("training.log", WHOLE)

    code, out, err = inv("run.import training.log")

    assert code == 0, out + err
    assert "training: imported" in out


def test_every_command_of_the_documentation_works(mlxops: Typed) -> None:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    section = page.partition("## Trainings of other tools")[2].partition("\n## ")[0]
    commands = [line.strip().removeprefix("inv ") for line in section.splitlines() if line.startswith("    inv ")]
    folder()
    write("training.log", WHOLE)

    assert [mlxops(command)[0] for command in commands] == [0, 0, 0]
