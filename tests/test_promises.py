"""The list of promises in PROMISES.md: each has tests, and each test that it names is there."""

from __future__ import annotations

import re

from commands import ROOT

_TESTS = ROOT / "tests"
_TEST = re.compile(r"^ *def (test_\w+)\(", re.MULTILINE)
_NAMED = re.compile(r"^  - `([\w/]+\.py)::(test_\w+)`$")


def _names_of(file: str) -> set[str]:
    """The names of the tests in a file."""
    return set(_TEST.findall((_TESTS / file).read_text(encoding="utf-8")))


def test_every_promise_has_a_test_that_is_there() -> None:
    lines = (_TESTS / "PROMISES.md").read_text(encoding="utf-8").splitlines()
    named = [found.groups() for line in lines if (found := _NAMED.match(line))]
    files = {file for file, _ in named}
    there = {file: _names_of(file) for file in files if (_TESTS / file).exists()}
    without = [
        line for line, below in zip(lines, [*lines[1:], ""], strict=True) if line[:2] == "- " and below[:4] != "  - "
    ]

    assert len(named) > 300
    assert [f"{file}::{test}" for file, test in named if test not in there.get(file, ())] == []
    assert without == []
    assert [line for line in lines if line.startswith("  - ") and not _NAMED.match(line)] == []
