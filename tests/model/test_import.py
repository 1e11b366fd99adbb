"""`model.import` as a person types it: names, folders, what is printed, and how it ends."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_reference import write_tiny_gguf

Ended = tuple[int, str, str]


@pytest.fixture
def tiny_gguf(tiny_model: Path) -> Path:
    """The tiny model as `tiny.gguf` in the current folder."""
    return write_tiny_gguf(tiny_model, Path("tiny.gguf").absolute(), packing="Q4_1")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", ".x", "..", "/tmp/x", "a\nb", "x" * 201])
def test_a_name_never_leaves_models(name: str, mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops(f"model.import nothing.gguf {shlex.quote(f'--name={name}')}")

    assert (code, "cannot be the name of a model" in err, "hint: `--name` takes a name" in err) == (2, True, True)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["~foo", "_x", "'x'", " x", "x ", "x,y", ",", "sample"])
def test_a_name_is_one_that_every_command_takes(name: str, tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops(f"model.import tiny.gguf {shlex.quote(f'--name={name}')}")

    assert (code, "cannot be the name of a model" in err, "hint: `--name` takes a name" in err) == (2, True, True)
    assert not Path("models").exists()


def test_a_file_named_sample_wants_another_name(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    tiny_gguf.rename("sample.gguf")

    assert "it stands for the sample model" in mlxops("model.import sample.gguf")[2]
    assert mlxops("model.import sample.gguf --name mine")[0] == 0


@pytest.mark.parametrize("words", ["'~nouser-here/x.gguf'", "tiny.gguf --output '~nouser-here/x'"])
def test_the_home_of_nobody_is_a_wrong_request(words: str, tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops(f"model.import {words}")

    assert (code, err.splitlines()[0]) == (2, "there is no user 'nouser-here'")


@pytest.mark.parametrize("folder", ["~mine", "-mine"])
def test_a_folder_that_would_be_read_as_something_else_is_named_in_full(
    folder: str, tiny_gguf: Path, mlxops: Callable[..., Ended]
) -> None:
    code, out, err = mlxops(f"model.import tiny.gguf --json --output './{folder}'")

    assert code == 0, err
    assert json.loads(out)["model"] == str(Path(folder).absolute())


def test_an_empty_name_is_refused(mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops("model.import nothing.gguf --name ''")

    assert (code, "--name" in err) == (2, True)


def test_a_file_without_a_name_of_its_own_wants_one(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    tiny_gguf.rename(".gguf.gguf")

    assert mlxops("model.import .gguf.gguf")[0] == 2
    assert mlxops("model.import .gguf.gguf --name mine")[0] == 0


def test_an_import_goes_into_models_and_says_how_to_train_it(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    code, out, err = mlxops("model.import tiny.gguf --dtype keep")

    assert (code, err) == (0, "")
    assert Path("models/tiny/config.json").is_file()
    assert "models/tiny" in out
    assert "kept packed: 29 Q4_1" in out
    assert "inv lora --model tiny trains it" in out


def test_a_name_with_spaces_is_quoted_where_it_is_to_be_typed(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    _, out, _ = mlxops("model.import tiny.gguf --name 'größer als 1'")

    assert "inv lora --model 'größer als 1' trains it" in out
    assert mlxops("lora --model 'größer als 1' --preview")[2].startswith("no data")


def test_a_model_that_another_folder_hides_is_named_by_its_path(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    Path("tiny").mkdir()

    _, out, _ = mlxops("model.import tiny.gguf --json")

    assert json.loads(out)["model"] == "models/tiny"


def test_output_is_a_folder_anywhere(tiny_gguf: Path, tmp_path: Path, mlxops: Callable[..., Ended]) -> None:
    code, out, _ = mlxops(f"model.import tiny.gguf --json --output {tmp_path}/a/b")

    assert (code, json.loads(out)["model"]) == (0, f"{tmp_path}/a/b")
    assert (tmp_path / "a" / "b" / "model.safetensors").is_file()
    assert not Path("models").exists()


def test_output_is_from_the_current_folder_even_if_a_model_has_that_name(
    tiny_gguf: Path, mlxops: Callable[..., Ended]
) -> None:
    mlxops("model.import tiny.gguf --name other")

    code, out, _ = mlxops("model.import tiny.gguf --json --output other")

    assert (code, json.loads(out)["model"], Path("other/config.json").is_file()) == (0, "other", True)


def test_a_name_and_an_output_are_one_too_many(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops("model.import tiny.gguf --name a --output b")

    assert (code, "both say where" in err) == (2, True)


@pytest.mark.parametrize("source", ["tiny.gguf", "nothing.gguf", "sample"])
def test_what_is_there_is_never_written_over(source: str, tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    Path("models/mine").mkdir(parents=True)

    code, _, err = mlxops(f"model.import {source} --name mine")

    assert (code, "there already" in err) == (3, True)
    assert list(Path("models/mine").iterdir()) == []


def test_a_file_that_is_not_there_leaves_nothing(mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops("model.import nothing.gguf")

    assert (code, "nothing.gguf" in err) == (2, True)
    assert list(Path.cwd().iterdir()) == []


def test_a_place_where_no_folder_can_be_made_is_said(tiny_gguf: Path, mlxops: Callable[..., Ended]) -> None:
    code, _, err = mlxops("model.import tiny.gguf --output tiny.gguf/inside")

    assert (code, "no folder can be made in" in err, "hint: choose another place" in err) == (1, True, True)
