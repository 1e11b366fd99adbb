"""A folder of mlx_lm.lora among the checkpoints: listed, explained, and taken over by the command that is given."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import training_runs
from listed_checkpoints import Program, explained, groups, typed
from ready_programs import run_forked
from training_runs import lora

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a folder that the real mlx_lm.lora trained to 6, saving at 4."""
    project = training_runs.make_project(tmp_path_factory.mktemp("peer") / "project", tiny_model)
    options = shlex.split("--train --iters 6 --batch-size 2 --num-layers 2 --save-every 4 --learning-rate 0.001")
    here = Path.cwd()
    os.chdir(project)
    try:
        places = ["--model", "models/tiny", "--data", "data", "--adapter-path", "models/lora_adapters"]
        code, out, err = run_forked("-m", "mlx_lm", "lora", *places, *options)
    finally:
        os.chdir(here)
    assert code == 0, out + err
    return project


@pytest.fixture
def theirs(tmp_path: Path, peer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of mlx-lm in a copy of that project, which is the current one; times as they were."""
    copy = Path(shutil.copytree(peer, tmp_path / "peer"))
    monkeypatch.chdir(copy)
    return copy / "models" / "lora_adapters"


def test_a_folder_of_mlx_lm_is_explained_and_its_command_takes_it_over(mlxops: Program, theirs: Path) -> None:
    project = theirs.parent.parent

    found = explained(mlxops, "debug-checkpoints models/lora_adapters --target-iters 9")
    ended = lora(project, *typed(found["command"]))

    assert (found["decision"]["kind"], found["newest"]["name"]) == ("refuse", "adapters.safetensors")
    assert "--learning-rate 0.001" in found["command"]
    assert ended.code == 0, ended.said
    (group,) = groups(mlxops)
    assert (group["kind"], group["iteration"], group["target"]) == ("run", 9, 9)


def test_a_target_that_is_reached_leaves_no_command(mlxops: Program, theirs: Path) -> None:
    found = explained(mlxops, "debug-checkpoints models/lora_adapters --target-iters 6")

    assert found["command"] is None
    assert found["notes"][-1] == "6 iterations are asked for, and it has 6: nothing is left to train"


def test_numbered_files_of_an_earlier_run_are_passed_over(mlxops: Program, theirs: Path) -> None:
    settings = theirs / "adapter_config.json"
    left_over = Path(shutil.copy(theirs / "0000004_adapters.safetensors", theirs / "0000500_adapters.safetensors"))
    os.utime(left_over, (settings.stat().st_mtime - 3600,) * 2)

    found = explained(mlxops, "debug-checkpoints models/lora_adapters --target-iters 9")

    assert [each["kind"] for each in found["findings"] if 500 in each["iterations"]] == [
        "left over",
        "beyond",
        "out of order",
    ]
    assert found["newest"]["name"] == "adapters.safetensors"
    assert lora(theirs.parent.parent, *typed(found["command"])).code == 0


def test_settings_that_do_not_match_the_arrays_are_named_and_not_taken_over(mlxops: Program, theirs: Path) -> None:
    settings = json.loads((theirs / "adapter_config.json").read_text())
    settings["lora_parameters"]["rank"] = 64
    (theirs / "adapter_config.json").write_text(json.dumps(settings))

    found = explained(mlxops, "debug-checkpoints models/lora_adapters")

    assert [each["message"] for each in found["findings"] if each["kind"] == "does not match"] == [
        "adapter_config.json does not match adapters.safetensors: it says rank 64, and the arrays have 8"
    ]
    assert found["command"] is None
    assert found["notes"][0].startswith("it cannot be taken over: adapter_config.json says rank 64")


def test_the_list_names_a_folder_of_mlx_lm_and_where_it_is_explained(mlxops: Program, theirs: Path) -> None:
    (group,) = groups(mlxops)

    assert [(item["iteration"], item["state"]) for item in group["items"]] == [
        (4, "weights only"),
        (None, "weights only"),
    ]
    assert "inv debug-checkpoints explains" in group["next"]
