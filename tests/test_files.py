"""Files are whole or absent whoever writes them, and what a killed process left is found and removed."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from threading import Barrier, Thread

import pytest
from commands import run_python

from mlxops import files
from mlxops.errors import BadRequest


def test_several_writers_of_one_file_leave_one_whole_text(tmp_path: Path) -> None:
    file, texts, start = tmp_path / "settings.json", [f"{number}\n" * 100 for number in range(4)], Barrier(4)
    failed: list[OSError] = []

    def write(text: str) -> None:
        start.wait()
        try:
            for _ in range(20):
                files.write_text(file, text)
        except OSError as error:
            failed.append(error)

    writers = [Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failed == []
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]


def test_a_text_that_cannot_be_written_leaves_the_old_one_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text("old")

    with pytest.raises(UnicodeEncodeError):
        files.write_text(file, "half of a pair: \ud800")

    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_tilde_is_the_home_folder() -> None:
    assert files.expanded("~/x") == Path(os.environ["HOME"]) / "x"
    assert files.expanded("x~/~y") == Path("x~/~y")
    assert files.expanded("./~y") == Path("~y")


@pytest.mark.parametrize("path", ["~nouser-here", "~nouser-here/x", Path("~nouser-here/x/y")])
def test_the_home_of_nobody_is_a_wrong_request(path: str | Path) -> None:
    with pytest.raises(BadRequest, match="there is no user 'nouser-here'") as caught:
        files.expanded(path)

    assert f"./{path}" in str(caught.value.hint)


def test_a_scratch_folder_is_gone_after_it(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path, ".making.") as folder:
        (folder / "below").mkdir()

    assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    ended = run_python(
        "-c",
        "import os, pathlib, signal\n"
        "from mlxops import files\n"
        "with files.scratch_folder(pathlib.Path.cwd(), '.making.') as folder:\n"
        "    (folder / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    (left,) = Path.cwd().iterdir()

    with files.scratch_folder(Path.cwd(), ".making.") as folder:
        there = list(Path.cwd().iterdir())

    assert (ended[0], left.name.startswith(".making.")) == (-signal.SIGKILL, True)
    assert there == [folder]


def test_a_scratch_folder_that_cannot_be_locked_is_not_worked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def fail(path: Path, *args: int) -> int:
        if Path(path).name.startswith(".making."):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *args)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Input/output error"), files.scratch_folder(tmp_path, ".making."):
        pass

    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path, ".making.") as first, files.scratch_folder(tmp_path, ".making.") as second:
        assert {first, second} == set(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".making.notes", ".making.0123abcd.bak", "x.making.0123abcd", ".makings.0123abcd"])
def test_folders_of_other_names_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    with files.scratch_folder(tmp_path, ".making."):
        pass

    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_file_and_a_link_of_such_a_name_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / ".making.0123abcd").symlink_to(tmp_path / "mine")
    (tmp_path / ".making.0123abce").write_text("mine")
    before = set(tmp_path.iterdir())

    with files.scratch_folder(tmp_path, ".making."):
        pass

    assert set(tmp_path.iterdir()) == before


def test_what_keeps_a_file_from_being_the_one_that_was_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"written")
    written = files.sha256(file)

    assert files.problem(file, written) is None
    file.write_bytes(b"another")
    assert files.problem(file, written) == "weights is not what was written (SHA-256)"
    assert files.problem(tmp_path / "absent", written) == "absent is gone"
    assert files.problem(tmp_path, written) == f"{tmp_path.name} cannot be read: Is a directory"


def test_one_place_is_the_same_however_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")

    assert files.is_same(tmp_path / "link", tmp_path / "folder")
    assert files.is_same(tmp_path / "absent" / ".." / "gone", tmp_path / "gone")
    assert not files.is_same(tmp_path / "folder", tmp_path / "gone")


def test_what_lies_in_a_folder_is_below_it_however_either_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folders").mkdir()
    (tmp_path / "link").symlink_to("folder")

    below = [tmp_path / "folder", tmp_path / "folder" / "gone", tmp_path / "link" / "inner", tmp_path / "link"]
    assert all(files.is_below(each, tmp_path / "folder") for each in below)
    assert files.is_below(tmp_path / "folder" / "inner", tmp_path / "link")
    assert not files.is_below(tmp_path / "folders", tmp_path / "folder")


def test_files_that_macos_puts_beside_others_are_no_ones_content(tmp_path: Path) -> None:
    for name in ("b.sql", "a.sql", "._a.sql", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.sql").mkdir()
    (tmp_path / "d.sql" / "._e.txt").touch()

    assert [file.name for file in files.matching(tmp_path, "*.sql")] == ["a.sql", "b.sql"]
    assert [file.name for file in files.matching(tmp_path, "**/*")] == ["a.sql", "b.sql", "c.txt"]
    assert files.matching(tmp_path / "nowhere", "*") == []
