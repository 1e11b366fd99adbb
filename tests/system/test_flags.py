"""Files that macOS hides are known by their flag, and shown again."""

from __future__ import annotations

from pathlib import Path

import mac

from mlxops.system import flags


def test_a_hidden_file_is_shown_again(a_mac: mac.Mac, tmp_path: Path) -> None:
    file = tmp_path / "_mlxops.pth"
    file.touch()
    before = flags.is_hidden(file)
    a_mac.hide(file)
    hidden = flags.is_hidden(file)
    flags.show(file)

    assert (before, hidden, flags.is_hidden(file)) == (False, True, False)


def test_without_flags_nothing_is_hidden(tmp_path: Path) -> None:
    flags.show(tmp_path)

    assert not flags.is_hidden(tmp_path)
