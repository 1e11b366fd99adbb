"""What a file system does is tried, and what it lacks is said with what helps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import mac
import pytest

from mlxops.projects import file_system
from mlxops.projects.facts import PlaceFacts
from mlxops.projects.file_system import FileSystemFacts

HERE = PlaceFacts(folder="/p", file_system="apfs")
ALL = FileSystemFacts()


def test_the_one_of_this_test_has_everything_and_nothing_is_left(tmp_path: Path) -> None:
    assert file_system.probe(tmp_path) == ALL
    assert list(tmp_path.iterdir()) == []


def test_a_volume_of_a_mac_that_has_no_full_sync_or_no_locks_is_told(a_mac: mac.Mac, tmp_path: Path) -> None:
    found = [file_system.probe(tmp_path)]
    a_mac.say("fullfsync", "works")
    a_mac.say("locks", "ENOTSUP")
    found.append(file_system.probe(tmp_path))

    assert found == [replace(ALL, is_full_sync=False), replace(ALL, has_locks=False)]


def test_links_and_two_spellings_of_a_name_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (tmp_path / file_system._NAME.swapcase()).touch()

    assert file_system.probe(tmp_path) == replace(ALL, has_links=False, ignores_case=True)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert file_system.probe(tmp_path / "nowhere").problem == "No such file or directory"


def test_what_a_file_system_lacks_is_said_with_what_helps() -> None:
    judged = {
        "all": (file_system.judge(ALL, HERE), "ok", "apfs: syncs, locks, has links, tells all spellings"),
        "folded": (file_system.judge(replace(ALL, ignores_case=True), HERE), "ok", "ignores case in names"),
        "broken": (file_system.judge(FileSystemFacts(problem="I/O error"), HERE), "broken", "renamed: I/O error"),
        "locks": (file_system.judge(replace(ALL, has_locks=False), HERE), "broken", "no training starts there"),
        "links": (file_system.judge(replace(ALL, has_links=False), HERE), "warning", "`adapters/latest` cannot"),
        "sync": (file_system.judge(replace(ALL, is_full_sync=False), HERE), "warning", "a power cut can cost"),
        "cloud": (file_system.judge(ALL, replace(HERE, synced_by="iCloud")), "warning", "iCloud syncs /p"),
        "share": (file_system.judge(ALL, replace(HERE, is_remote=True)), "warning", "a disk of this machine"),
    }

    assert {name: each.level for name, (each, _, _) in judged.items()} == {
        name: level for name, (_, level, _) in judged.items()
    }
    assert [name for name, (each, _, said) in judged.items() if said not in f"{each.said} {each.cure}"] == []
    assert all(each.cure for each, level, _ in judged.values() if level != "ok")
