"""Whether the reader of our output is still there."""

from __future__ import annotations

import os
import select
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
