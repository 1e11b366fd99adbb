"""A model's folder is there as a whole or not at all, whoever else makes it and whatever the disk says."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from gguf_reference import write_tiny_gguf
from ready_programs import run_forked

from mlxops.errors import Failed, Refused
from mlxops.models.model_files import new_folder

_SECOND = """
import pathlib, sys
from mlxops.errors import Refused
from mlxops.models.model_files import new_folder

target = pathlib.Path("models/tiny")

def come_first(event, arguments):
    if event == "os.rename" and not target.exists():
        {made}

sys.addaudithook(come_first)  # called by Python right before it renames
try:
    with new_folder(target) as folder:
        (folder / "config.json").write_text("mine")
except Refused as error:
    print(error)
"""


@pytest.mark.parametrize(
    "made", ['target.mkdir(); (target / "config.json").write_text("theirs")', 'target.write_text("theirs")']
)
@pytest.mark.slow
def test_the_one_who_comes_an_instant_late_is_refused(made: str) -> None:
    code, out, err = run_forked("-c", _SECOND.format(made=made))

    assert (code, out) == (0, "'models/tiny' is there already\n"), err
    assert [path.read_text() for path in Path("models").rglob("*") if path.is_file()] == ["theirs"]
    assert [path.name for path in Path("models").iterdir()] == ["tiny"]


@pytest.mark.slow
def test_an_import_that_was_killed_leaves_nothing_after_the_next_one(tmp_path: Path, tiny_model: Path) -> None:
    source = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", packing="Q4_1")
    killed = run_forked(
        "-c",
        "import os, pathlib, signal\n"
        "from mlxops.models.gguf.importing import import_gguf\n"
        "def kill(done, total):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"import_gguf(pathlib.Path({str(source)!r}), pathlib.Path('models/tiny'), dtype='float32', progress=kill)\n",
    )
    left = [path.name for path in Path("models").iterdir()]

    with new_folder(Path("models/tiny")):
        pass

    assert (killed[0], len(left)) == (-9, 1)
    assert [path.name for path in Path("models").iterdir()] == ["tiny"]


def test_the_one_who_comes_second_leaves_the_first_at_work(tmp_path: Path) -> None:
    first, second = new_folder(tmp_path / "model"), new_folder(tmp_path / "model")
    folders = [first.__enter__(), second.__enter__()]
    there = set(tmp_path.iterdir())

    second.__exit__(None, None, None)
    with pytest.raises(Refused, match="is there already"):
        first.__exit__(None, None, None)

    assert there == set(folders)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


_LIMITED = """
import json, pathlib, resource
from mlxops.errors import Failed
from mlxops.models.model_files import new_folder, write_tokenizer
from mlxops.models.tiny import make_tiny, _trained_tokenizer

def weights():
    make_tiny(pathlib.Path("models/tiny"))

def tokenizer():
    trained = _trained_tokenizer(384)
    with new_folder(pathlib.Path("models/tiny")) as folder:
        write_tokenizer(folder, trained, special_tokens={{}}, chat_template=None, context_length=8)

def any_file():
    with new_folder(pathlib.Path("models/tiny")) as folder:
        (folder / "config.json").write_bytes(bytes(100_000))

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    {what}()
except Failed as error:
    print(json.dumps([error.message, error.hint, [path.name for path in pathlib.Path("models").iterdir()]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["weights", "tokenizer", "any_file"])
def test_a_write_that_fails_is_a_sentence_and_leaves_nothing(what: str) -> None:
    code, out, err = run_forked("-c", _LIMITED.format(what=what))

    assert code == 0, err
    assert json.loads(out) == [
        "the model could not be written: File too large",
        "is the disk full, or ulimit -f set?",
        [],
    ]


def test_a_pipe_that_nobody_reads_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), new_folder(tmp_path / "model"):
        raise BrokenPipeError

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "link"])
def test_a_file_or_a_broken_link_in_the_place_of_models_is_said(is_link: bool, tmp_path: Path) -> None:
    place = tmp_path / "models"
    place.symlink_to("nowhere") if is_link else place.write_text("")

    with (
        pytest.raises(Failed, match=r"no folder can be made in .*: it is a file, or a link that leads"),
        new_folder(place / "tiny"),
    ):
        pass


def test_a_file_system_without_permissions_takes_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with new_folder(Path("models/tiny")) as folder:
        (folder / "config.json").write_text("mine")

    assert Path("models/tiny/config.json").read_text() == "mine"
