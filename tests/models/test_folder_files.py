"""What stands in for a file of a model, or cannot be read, is named for what it is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ready_programs import run_forked

from mlxops.errors import BadRequest
from mlxops.models.folder_files import read_json
from mlxops.models.folders import check_model, find_model, list_models

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4660123\n".format("7" * 64)
NAMES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model to break."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))
    (folder / "generation_config.json").write_text("{}")
    return folder


def refusal(folder: Path) -> BadRequest:
    """What `check_model` says of a folder that it refuses."""
    with pytest.raises(BadRequest) as caught:
        check_model(folder)
    assert caught.value.hint
    return caught.value


def _pointer(file: Path) -> None:
    file.write_text(POINTER)


def _annex(file: Path) -> None:
    file.write_text("/annex/objects/SHA256E-s4660123--7.safetensors\n")


def _page(file: Path) -> None:
    file.write_text("\n<!DOCTYPE html>\n<html>")


def _dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("../../blobs/0123abcd")


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_pointer, "is a Git LFS pointer, not the file itself"),
        (_annex, "is a git-annex pointer"),
        (_page, "is a web page"),
        (_dangling, "is a link that leads nowhere (../../blobs/0123abcd)"),
        (_loop, "link"),
        (_folder, "is not a file"),
        (_pipe, "is not a file"),
    ],
)
def test_what_stands_in_for_a_file_is_named(model: Path, name: str, damage: Callable[[Path], None], words: str) -> None:
    damage(model / name)

    message = refusal(model).message

    assert str(model / name) in message
    assert words in message


def test_the_hint_for_a_pointer_downloads_it_as_it_stands(model: Path) -> None:
    spaced = model.rename(model.with_name("it's tiny"))
    _pointer(spaced / "model.safetensors")

    command = (refusal(spaced).hint or "").split("`")[1]

    assert shlex.split(command) == ["git", "-C", str(spaced), "lfs", "pull"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "cannot be read as JSON: maximum recursion"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "cannot be read as JSON: Exceeds the limit"),
        ("\ufeff{}", "not JSON: Unexpected UTF-8 BOM"),
        ("", "not JSON"),
    ],
)
def test_json_that_python_cannot_read_is_said(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")

    with pytest.raises(BadRequest) as caught:
        read_json(tmp_path / "config.json")

    assert words in caught.value.message


def test_a_model_whose_configuration_is_a_broken_link_is_still_listed(model: Path) -> None:
    _dangling(model / "config.json")

    assert list_models(model.parent) == ["tiny"]


@pytest.mark.parametrize("typed", ["gone", "models/gone"])
def test_a_link_to_a_model_that_is_gone_is_no_unknown_name(model: Path, tmp_path: Path, typed: str) -> None:
    (model.parent / "gone").symlink_to("/nowhere/at/all")

    assert list_models(model.parent) == ["gone", "tiny"]
    assert "models/gone is a link that leads nowhere" in refusal(model.parent / "gone").message
    with pytest.raises(BadRequest, match=r"models/gone is a link that leads nowhere \(/nowhere/at/all\)"):
        find_model(typed, resolve=lambda text: tmp_path / text, models_folder=model.parent)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize(
    ("closed", "words"),
    [
        ("tiny/config.json", "tiny/config.json cannot be read: Permission denied"),
        ("tiny/model.safetensors", "tiny/model.safetensors cannot be read: Permission denied"),
        ("tiny/tokenizer.json", "tiny/tokenizer.json cannot be read: Permission denied"),
        ("tiny", "tiny cannot be read: Permission denied"),
    ],
)
def test_what_may_not_be_read_is_said(model: Path, closed: str, words: str) -> None:
    (model.parent / closed).chmod(0)
    program = (
        "import training_runs; training_runs.obey_permissions()\n"
        "from pathlib import Path\nfrom mlxops.errors import BadRequest\nfrom mlxops.models import folders\n"
        f"models = Path({str(model.parent)!r})\nprint(folders.list_models(models))\n"
        "try:\n    folders.check_model(models / 'tiny')\nexcept BadRequest as error:\n    print(error)"
    )

    code, out, err = run_forked("-c", program)
    (model.parent / closed).chmod(0o755)

    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "['tiny']"
    assert words in out.splitlines()[1]
