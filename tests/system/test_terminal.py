"""Whether the reader of our output is still there, and which keys suspend."""

from __future__ import annotations

import os
import pty
import select
import termios
from pathlib import Path

import mac
import pytest

from mlxops.system import terminal


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_a_reader_that_has_gone_is_seen(system: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if system == "darwin":
        request.getfixturevalue("a_mac")
    reading, writing = os.pipe()
    before = terminal.reader_has_gone(writing)
    os.close(reading)
    with (tmp_path / "file").open("w") as file:
        assert (before, terminal.reader_has_gone(writing), terminal.reader_has_gone(file.fileno())) == (
            False,
            True,
            False,
        )
    os.close(writing)


def test_a_pipe_that_is_full_still_has_its_reader(a_mac: mac.Mac) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while select.select([], [writing], [], 0)[1]:
        os.write(writing, bytes(1 << 12))
    assert not terminal.reader_has_gone(writing)
    os.close(reading)
    assert terminal.reader_has_gone(writing)
    os.close(writing)


@pytest.mark.parametrize(
    ("system", "none", "characters"), [("linux", 0, [termios.VSUSP]), ("darwin", 255, [termios.VSUSP, 11])]
)
def test_no_key_suspends_and_no_other_key_changes(
    system: str, none: int, characters: list[int], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "darwin":
        request.getfixturevalue("a_mac")
    monkeypatch.setattr(os, "fpathconf", lambda descriptor, name: {"PC_VDISABLE": none}[name])
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    after = terminal.without_suspending(before, follower)
    os.close(leader)
    os.close(follower)

    changed = [place for place, (was, now) in enumerate(zip(before[6], after[6], strict=True)) if was != now]
    assert {*changed} | {11} & {*characters} == {*characters}
    assert {after[6][place] for place in characters} == {bytes([none])}
    assert after[:6] == before[:6]
