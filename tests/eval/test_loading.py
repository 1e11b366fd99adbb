"""The model and the adapter that a command names: by a run, a checkpoint of it, a folder or a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm import utils

from mlxops import registry
from mlxops.errors import BadRequest, MlxopsError, NotFound, Refused
from mlxops.jobs.eval import loading
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project


@pytest.fixture
def here(tuned_project: Path, tmp_path: Path) -> Invocation:
    """What a command in the tuned project is told."""
    return Invocation(project=Project.at(tuned_project), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("run", "file"),
    [
        ("tuned", "adapters.safetensors"),
        ("latest", "adapters.safetensors"),
        ("tuned:4", "0000004_adapters.safetensors"),
        ("tuned:last", "0000008_adapters.safetensors"),
        ("tuned:best", "0000008_adapters.safetensors"),
        ("une:4", "0000004_adapters.safetensors"),
        ("1:last", "0000008_adapters.safetensors"),
    ],
)
def test_a_run_names_its_model_and_one_of_its_adapters(here: Invocation, run: str, file: str) -> None:
    chosen = loading.choose(here, model=None, run=run)

    assert chosen.folder == here.project.root / "models" / "tiny"
    assert chosen.adapter is not None
    assert chosen.adapter.adapter.file == here.project.root / "adapters" / "tuned" / file
    assert chosen.adapter.run_id == 1


@pytest.mark.parametrize("path", ["adapters/tuned", "adapters/tuned/0000004_adapters.safetensors"])
def test_an_adapters_folder_names_its_model(here: Invocation, path: str) -> None:
    chosen = loading.choose(here, model=None, adapter_path=path)

    assert chosen.folder == here.project.root / "models" / "tiny"
    assert chosen.adapter is not None
    assert chosen.adapter.adapter.run == "tuned"


def test_a_run_without_its_adapter_config_is_loaded_as_its_row_says(here: Invocation) -> None:
    """With another scale the same tensors are another model."""
    with registry.open_registry(here.project.registry_path) as db, db.transaction() as connection:
        connection.execute("UPDATE runs SET config = json_set(config, '$.lora_scale', 3.5)")
    (here.project.root / "adapters" / "tuned" / "adapter_config.json").unlink()

    adapter = loading.adapter_of_run(here, "tuned:4", 4).adapter

    assert (adapter.scale, adapter.run) == (3.5, "tuned")
    assert adapter.model_identity is not None


def test_a_model_alone_has_no_adapter(here: Invocation) -> None:
    assert loading.choose(here, model="tiny").adapter is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"model": None}, "no model given"),
        ({"model": None, "run": "tuned", "adapter_path": "adapters/tuned"}, "give one of them"),
        ({"model": None, "run": "tuned:5"}, "the run 'tuned' has no checkpoint at iteration 5"),
        ({"model": None, "run": "tuned:x"}, "'tuned:x' names no checkpoint"),
        ({"model": None, "run": "other"}, "no run 'other'"),
        ({"model": "tiny", "adapter_path": "data"}, "there is no adapter in"),
        ({"model": "tiny", "adapter_path": "nowhere"}, "there is no adapter"),
    ],
)
def test_what_is_not_there_is_named(here: Invocation, asked: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest) as raised:
        loading.choose(here, **asked)

    assert words in raised.value.message


def test_a_checkpoint_whose_file_is_gone_names_its_run(here: Invocation) -> None:
    (here.project.root / "adapters" / "tuned" / "0000004_adapters.safetensors").unlink()

    with pytest.raises(NotFound, match="run 'tuned': there is no checkpoint of iteration 4 in"):
        loading.choose(here, model=None, run="tuned:4")


@pytest.mark.parametrize(
    ("run", "name"), [("tuned:4", "0000004_adapters.safetensors"), ("tuned", "adapters.safetensors")]
)
def test_an_adapter_that_is_not_what_was_written_is_refused(here: Invocation, run: str, name: str) -> None:
    file = here.project.root / "adapters" / "tuned" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(Refused, match=rf"run 'tuned': {name} is not what was written \(SHA-256\)"):
        loading.choose(here, model=None, run=run)


def test_the_newest_adapter_of_a_run_at_work_or_killed_may_be_there_before_its_row(here: Invocation) -> None:
    with registry.open_registry(here.project.registry_path) as db, db.transaction() as connection:
        connection.execute("UPDATE runs SET status = 'running'")
        connection.execute("DELETE FROM checkpoints WHERE iteration = 8")

    chosen = loading.choose(here, model=None, run="tuned")

    assert chosen.adapter is not None
    assert chosen.adapter.adapter.file.name == "adapters.safetensors"


def test_a_loaded_model_has_the_adapter_in_it(here: Invocation) -> None:
    tokens = mx.array([[1, 5, 9, 3]])
    fresh, _ = utils.load(
        str(here.project.root / "models" / "tiny"), adapter_path=str(here.project.root / "adapters" / "tuned")
    )

    loaded = loading.load(here, loading.choose(here, model=None, run="tuned"))

    assert mx.array_equal(loaded.model(tokens), fresh(tokens))


def test_an_adapter_of_another_model_is_refused_with_its_run(here: Invocation) -> None:
    other = shutil.copytree(here.project.root / "models" / "tiny", here.project.root / "models" / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}))

    chosen = loading.choose(here, model="other", run="tuned")
    with pytest.raises(MlxopsError) as raised:
        loading.load(here, chosen)

    assert raised.value.message.startswith("the adapter of run 'tuned' was trained on another model, 'models/tiny': ")


def test_an_adapter_without_settings_is_read_from_its_arrays(here: Invocation) -> None:
    folder = here.project.root / "adapters" / "tuned"
    said = loading.choose(here, model="tiny", adapter_path="adapters/tuned")
    (folder / "adapter_config.json").unlink()

    read = loading.choose(here, model="tiny", adapter_path="adapters/tuned")

    assert said.adapter is not None
    assert read.adapter is not None
    one, other = said.adapter.adapter, read.adapter.adapter
    assert (other.rank, other.num_layers, other.fine_tune_type) == (one.rank, one.num_layers, one.fine_tune_type)
    assert (other.run, other.model, other.scale) == (None, None, 20.0)


def test_an_adapter_of_peft_is_named(here: Invocation) -> None:
    folder = here.project.root / "peft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(BadRequest, match="holds an adapter of PEFT"):
        loading.choose(here, model="tiny", adapter_path="peft")


@pytest.mark.parametrize("text", ["tuned", "tuned:4", "adapters/tuned", "adapters/tuned/0000008_adapters.safetensors"])
def test_an_adapter_for_a_loaded_model_is_a_run_or_a_path(here: Invocation, text: str) -> None:
    assert loading.choose_adapter(here, text, 4).adapter.run == "tuned"
