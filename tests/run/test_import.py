"""`run.import` of what mlx_lm.lora really writes, beside runs of ours, and as it is typed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import training_runs
from commands import ROOT
from folders_to_import import WHOLE, Typed, adapter, ask, curve, folder, take, write
from known_runs import folder_of, settings, train
from ready_programs import run_forked

from mlxops import registry
from mlxops.errors import BadRequest, MlxopsError

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


def test_an_own_runs_folder_is_never_advised_to_import(heron: Path) -> None:
    with pytest.raises(MlxopsError) as refused:
        take(".")

    assert "heron" not in f"{refused.value.message} {refused.value.hint}"


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
