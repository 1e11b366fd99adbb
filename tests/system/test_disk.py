"""What is written is forced to the disk as far as its file system can, and a disk that says no is heard."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import mac
import pytest

from mlxops import files
from mlxops.system import disk


@pytest.mark.parametrize("says", ["ENOTSUP", "EINVAL", "ENOTTY", "ENOSYS"])
def test_a_volume_without_full_syncs_takes_files_all_the_same(a_mac: mac.Mac, tmp_path: Path, says: str) -> None:
    a_mac.say("fullfsync", says)

    files.write_text(tmp_path / "file", "whole")

    assert (tmp_path / "file").read_text() == "whole"
    assert not disk.syncs_fully(tmp_path / "file")


@pytest.mark.parametrize("says", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_disk_that_says_no_is_heard(a_mac: mac.Mac, tmp_path: Path, says: str) -> None:
    a_mac.say("fullfsync", says)

    with pytest.raises(OSError, match=os.strerror(getattr(errno, says))):
        files.write_text(tmp_path / "file", "whole")

    assert not (tmp_path / "file").exists()


def test_a_disk_with_full_syncs_is_synced_by_them(a_mac: mac.Mac, tmp_path: Path) -> None:
    a_mac.say("fullfsync", "works")
    files.write_text(tmp_path / "file", "whole")

    assert disk.syncs_fully(tmp_path / "file")


@pytest.mark.parametrize(("number", "is_heard"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folders_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_heard: bool
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    heard = None
    try:
        files.write_text(tmp_path / "file", "whole")
    except OSError as error:
        heard = error.errno

    assert heard == (number if is_heard else None)
