"""`run.import` of folders of adapters: what is taken of them, once, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from folders_to_import import BEGINNING, WHOLE, Typed, adapter, ask, everything, folder, report, take, validation, write
from ready_programs import run_forked

from mlxops.errors import BadRequest

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
