"""Folders of mlx_lm.lora and of the older toolkit: what is read of them, and that a run continues in them exactly."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import mlx_lm
import numpy as np
import pytest
import safetensors.numpy
import training_runs
from mlx.utils import tree_flatten
from ready_programs import ready_programs
from shared_folders import Shared
from training_runs import STEP, attempts, lora, result

from mlxops import layout, registry
from mlxops.config import DeleteConfig
from mlxops.errors import Refused
from mlxops.jobs.run import delete
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

slow = pytest.mark.slow

SETTINGS = (
    *("--model", "tiny", "--batch-size", "2", "--save-every", "4", "--steps-per-report", "3", "--steps-per-eval", "5"),
    *("--val-batches", "2", "--learning-rate", "0.003", "--iters", "16"),
)
HERE = (*SETTINGS, "--adopt", "old", "--adapter-path", "old", "--name", "run")


@pytest.fixture
def trained(shared: Shared, tiny_model: Path) -> Path:
    """A project with a folder `old` that the real mlx_lm.lora trained for 10 iterations, saving at 4 and 8."""

    def train(folder: Path) -> None:
        train_by_mlx_lm(training_runs.make_project(folder / "project", tiny_model), "old")

    return shared("trained-by-mlx-lm", train) / "project"


def train_by_mlx_lm(project: Path, folder: str) -> None:
    config = project / "mlx_lm.yaml"
    config.write_text("lora_parameters: {rank: 4, scale: 10.0, dropout: 0.1, keys: [self_attn.q_proj]}\n")
    options = f"--train --iters 10 --batch-size 2 --num-layers 2 --save-every 4 --adapter-path {folder}".split()
    with ready_programs(project.with_name("programs")) as programs:
        command = [programs / "mlx_lm", "lora", "--model", "models/tiny", "--data", "data", "-c", config.name, *options]
        ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    config.unlink()


@pytest.fixture
def straight(trained: Path, shared: Shared, tmp_path: Path) -> Path:
    """The same project after that folder was taken over and trained to 16 without interruption."""

    def train(folder: Path) -> None:
        ended = lora(training_runs.copy_project(trained, folder / "project"), *HERE)
        assert ended.code == 0, ended.said

    return training_runs.copy_project(shared("adopted", train) / "project", tmp_path / "straight")


@pytest.fixture
def project(tmp_path: Path, trained: Path) -> Path:
    """A copy of the project as mlx_lm.lora left it."""
    return Path(shutil.copytree(trained, tmp_path / "trained"))


def arrays(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


def same(one: Path, other: Path) -> bool:
    first, second = arrays(one), arrays(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


# a folder that mlx_lm.lora trained ----------------------------------------------------------------------------------


@slow
def test_a_folder_of_mlx_lm_is_refused_without_adopt_and_the_hint_names_it(project: Path) -> None:
    before = training_runs.contents(project / "old")

    ended = lora(project, *SETTINGS, "--num-layers", "2", "--adapter-path", "old")

    assert (ended.code, training_runs.contents(project / "old")) == (3, before)
    assert "hint: `--adopt old` continues it" in ended.said


@slow
def test_the_shape_comes_from_the_folder_and_all_else_from_the_command(straight: Path) -> None:
    config = registry_run(straight)["config"]

    assert [config[name] for name in ("lora_rank", "lora_scale", "lora_dropout", "num_layers", "lora_keys")] == [
        *(4, 10.0, 0.1, 2, ["self_attn.q_proj"])
    ]
    assert (config["learning_rate"], config["batch_size"]) == (0.003, 2)


@slow
def test_the_start_is_recorded_as_warm_with_what_was_taken(straight: Path) -> None:
    (attempt,) = attempts(straight, "run")

    assert (attempt["start_kind"], attempt["from_iteration"], attempt["to_iteration"]) == ("warm", 10, 16)
    assert attempt["start_note"] == "began with old/adapters.safetensors as iteration 10, with a fresh optimizer"


@slow
def test_numbering_goes_on_from_a_whole_checkpoint_with_the_adopted_weights(straight: Path, trained: Path) -> None:
    iterations = [row["iteration"] for row in result(straight, "run")["checkpoints"]]

    assert (iterations[0], iterations[-1]) == (10, 16)
    assert (straight / "old" / "0000010_state.safetensors").exists()
    assert same(straight / "old" / "0000010_adapters.safetensors", trained / "old" / "adapters.safetensors")


@slow
def test_nothing_of_the_old_folder_is_lost(straight: Path, trained: Path) -> None:
    old = straight / "old"
    kept = {path.name: old / path.name for path in (trained / "old").iterdir()}
    kept |= {name: old / f"{name}{layout.BEFORE}" for name in ("adapters.safetensors", "adapter_config.json")}

    assert {name: path.read_bytes() for name, path in kept.items()} == {
        path.name: path.read_bytes() for path in (trained / "old").iterdir()
    }


@slow
def test_mlx_lm_loads_the_folder_after_it_was_taken_over(straight: Path) -> None:
    model, _ = mlx_lm.load(str(straight / "models" / "tiny"), adapter_path=str(straight / "old"))

    loaded = dict(tree_flatten(model.trainable_parameters()))
    wanted = arrays(straight / "old" / "adapters.safetensors")
    assert {name: value.shape for name, value in wanted.items()} == {name: loaded[name].shape for name in wanted}
    assert all(np.array_equal(np.array(loaded[name]), value) for name, value in wanted.items())


KILLS = (
    # as the old folder's files are kept, at the settings, at the beginning, and in the files of the first checkpoint
    ("mlxops.adapters.foreign:keep_originals", 1),
    ("mlxops.adapters.foreign:_keep_beside", 2),
    ("mlxops.adapters.adapter_config:write", 1),
    ("mlxops.training.first_checkpoint:write", 1),
    ("mlxops.files:sync", 2),
    ("mlxops.files:sync", 4),
    ("mlxops.files:sync", 6),
    # with that checkpoint
    (STEP, 1),
    (STEP, 4),
)
"""What kills a command that takes a folder over, given again and again: before that call of its process."""


@slow
def test_taking_over_that_was_killed_goes_on_exactly(project: Path, straight: Path) -> None:
    for place, call in KILLS:
        died = lora(project, *HERE, first=partial(training_runs.signal_itself, signal.SIGKILL, place, call))
        assert died.code == -signal.SIGKILL, (place, call, died.said)

    ended = lora(project, *HERE)

    assert ended.code == 0, ended.said
    assert result(project, "run") == result(straight, "run")
    assert without_states(project / "old") == without_states(straight / "old")


@slow
def test_the_same_command_without_adopt_goes_on_exactly(project: Path, straight: Path) -> None:
    lora(project, *HERE, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 4))

    ended = lora(project, *SETTINGS, "--adapter-path", "old")

    assert ended.code == 0, ended.said
    assert result(project, "run") == result(straight, "run")


@slow
def test_the_same_command_once_more_finds_it_finished(straight: Path) -> None:
    again, longer = lora(straight, *HERE), lora(straight, *SETTINGS, "--adopt", "old", "--preview", "--iters", "20")

    assert "already at iteration 16" in again.said
    assert "extends run from iteration 16" in longer.said


@slow
def test_another_folder_leaves_the_old_one_as_it_is(project: Path) -> None:
    before = training_runs.contents(project / "old")

    ended = lora(project, *SETTINGS, "--adopt", "old/0000004_adapters.safetensors", "--name", "run", "--iters", "6")

    assert (ended.code, training_runs.contents(project / "old")) == (0, before)
    first = project / "adapters" / "run" / "0000004_adapters.safetensors"
    assert same(first, project / "old" / "0000004_adapters.safetensors")


@slow
def test_files_of_later_iterations_are_kept_under_another_name(project: Path) -> None:
    old = project / "old"
    before = {path.name: path.read_bytes() for path in old.iterdir()}

    ended = lora(project, *SETTINGS, "--adopt", "old/0000004_adapters.safetensors", "--iters", "6")

    assert ended.code == 0, ended.said
    assert {path.name.removesuffix(".before"): path.read_bytes() for path in old.glob("*.before")} == before


@slow
def test_an_adopted_folder_can_be_branched_from(straight: Path) -> None:
    shape = ("--num-layers", "2", "--lora-rank", "4", "--lora-keys", "self_attn.q_proj")

    ended = lora(straight, *SETTINGS, *shape, "--branch", "--from", "run:12", "--preview")

    assert ended.code == 0, ended.said
    assert "a branch of run at iteration 12" in ended.said


@slow
@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (("--lora-rank", "8"), 3, "lora_rank: was 4, now 8"),
        (("--lora-scale", "20"), 3, "lora_scale: was 10.0, now 20.0"),
        (("--num-layers", "1"), 3, "num_layers: was 2, now 1"),
        (("--iters", "10"), 2, "`--iters 20` trains 10 more"),
        (("--branch",), 2, "two ways to begin"),
        (("--adopt", "nowhere"), 2, "there is no adapter"),
        (("--adopt", "data"), 2, "there is no adapter in"),
        (("--adopt", "old/0000012_adapters.safetensors"), 2, "there is no adapter"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(project: Path, typed: tuple[str, ...], code: int, said: str) -> None:
    before = training_runs.contents(project / "old")

    ended = lora(project, *SETTINGS, "--adopt", "old", *typed)

    assert (ended.code, training_runs.contents(project / "old")) == (code, before)
    assert said in ended.said
    assert not (project / "adapters").exists()


@slow
def test_arrays_that_do_not_fit_are_all_named_before_anything_is_made(project: Path) -> None:
    path = project / "old" / "adapters.safetensors"
    changed = arrays(path)
    a, b, *_ = sorted(changed)
    changed["model.layers.0.mlp.up_proj.lora_a"] = changed.pop(a)
    changed[b] = changed[b][:, :-1].copy()
    safetensors.numpy.save_file(changed, path)

    ended = lora(project, *SETTINGS, "--adopt", "old")

    assert ended.code == 2
    assert f"{a}: missing" in ended.said
    assert "model.layers.0.mlp.up_proj.lora_a: the model trains no such array" in ended.said
    assert f"{b}: is 4 x " in ended.said
    assert not (project / "old" / ".lock").exists()


@slow
def test_another_base_model_is_said(project: Path) -> None:
    path = project / "old" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "models/other"}))

    ended = lora(project, *SETTINGS, "--adopt", "old", "--preview")

    assert "the adapter was trained on 'models/other', and resumes 'models/tiny'" in ended.said


@slow
def test_the_folder_of_a_run_of_ours_is_not_adopted(project: Path) -> None:
    assert lora(project, *SETTINGS, "--num-layers", "2", "--name", "mine", "--iters", "1").code == 0

    ended = lora(project, *SETTINGS, "--adopt", "adapters/mine")

    assert ended.code == 3
    assert "hint: `--branch --from mine`" in ended.said


def without_states(folder: Path) -> dict[str, bytes]:
    """The files of a folder; the contents of states, which hold speeds too, do not count."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    return {name: b"" if name.endswith("_state.safetensors") else content for name, content in found.items()}


def registry_run(project: Path) -> dict[str, Any]:
    with registry.open_read_only(project / "runs.db") as db:
        return registry.find_run(db, "run")


# the older toolkit --------------------------------------------------------------------------------------------------


@pytest.fixture
def older(project: Path) -> Path:
    """A project as the older toolkit leaves it: its adapter in `models/`, copies of the data, an environment, a log."""
    (project / "old").rename(project / "models" / "lora_adapters")
    for path in (project / "models" / "lora_adapters" / "adapter_config.json", project / "venv" / "pyvenv.cfg"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (project / "mlx_data").mkdir()
    shutil.copy(project / "data" / "train.jsonl", project / "mlx_data" / "train.jsonl")
    shutil.copy(project / "data" / "train.jsonl", project / "train.jsonl")
    (project / "training.log").write_text("Iter 1: Val loss 3.0\n")
    (project / "requirements.txt").write_text("mlx\n")
    return project


@slow
def test_a_project_of_the_older_toolkit_goes_on_with_its_adapter(older: Path) -> None:
    left = {path: path.read_bytes() for path in older.rglob("*") if path.is_file() and "lora_adapters" not in str(path)}

    ended = lora(older, *SETTINGS, "--data", "data/train.jsonl", "--adopt", "models/lora_adapters")

    assert ended.code == 0, ended.said
    assert (older / "models" / "lora_adapters" / "0000016_state.safetensors").exists()
    assert {path: path.read_bytes() for path in left if not path.name.startswith("runs.db")} == {
        path: content for path, content in left.items() if not path.name.startswith("runs.db")
    }


@slow
def test_without_its_settings_the_shape_is_read_from_the_arrays_and_the_scale_is_asked_for(older: Path) -> None:
    (older / "models" / "lora_adapters" / "adapter_config.json").unlink()

    ended = lora(older, *SETTINGS, "--adopt", "models/lora_adapters", "--lora-scale", "10", "--name", "run")

    assert ended.code == 0, ended.said
    assert "no file says the scale of the adapter: --lora-scale is taken" in ended.said
    config = registry_run(older)["config"]
    assert (config["lora_rank"], config["lora_scale"], config["num_layers"]) == (4, 10.0, 2)
    assert (config["lora_keys"], config["origin"]["iteration"]) == (["self_attn.q_proj"], 8)


@slow
def test_an_adapter_of_the_npz_format_is_taken_over(project: Path) -> None:
    old = project / "old"
    np.savez(old / "adapters.npz", **arrays(old / "adapters.safetensors"))
    (old / "adapters.safetensors").unlink()
    settings = {
        "lora_layers": 2,
        "lora_parameters": {"rank": 4, "alpha": 8, "scale": 5.0, "keys": ["self_attn.q_proj"]},
    }
    (old / "adapter_config.json").write_text(json.dumps(settings | {"iters": 10}))

    ended = lora(project, *SETTINGS, "--adopt", "old", "--name", "run")

    assert ended.code == 0, ended.said
    assert (registry_run(project)["config"]["lora_scale"], registry_run(project)["config"]["num_layers"]) == (10.0, 2)
    with np.load(old / "adapters.npz") as before:
        begun = arrays(project / "adapters" / "run" / "0000010_adapters.safetensors")
        assert all(np.array_equal(begun[name], before[name]) for name in before.files)


@slow
def test_removing_a_run_gives_back_the_folder_that_it_took_over(project: Path, straight: Path) -> None:
    before = contents(project / "old")
    there = straight
    (there / "old" / "train.log").touch()
    invocation = Invocation(project=Project.at(there))

    planned = delete.plan(invocation, DeleteConfig(runs=["run"]))
    (there / "old" / "adapter_config.json").unlink()  # as where a removal was cut short
    with pytest.raises(Refused):
        delete.remove(invocation, planned)
    delete.remove(invocation, delete.plan(invocation, DeleteConfig(runs=["run"])))

    assert contents(there / "old") == before
    with registry.open_read_only(there / "runs.db") as db:
        assert registry.list_runs(db) == []


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
