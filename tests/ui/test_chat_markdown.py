"""Markdown drawn while it comes: finished blocks stay, code is one block, and nothing controls the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mlxops.ui.eval.markdown import MarkdownStream, printable, split

TEXT = "# Title\n\nSome *words* here.\n\n```python\na = 1\n\nb = 2\n```\n\n- one\n- two\n"


@pytest.mark.parametrize(
    ("text", "finished", "open_"),
    [
        ("", "", ""),
        ("a", "", "a"),
        ("a\n\nb", "a\n\n", "b"),
        ("a\n\n```\nb\n\nc", "a\n\n", "```\nb\n\nc"),
        ("```\nb\n\nc\n```\nd", "```\nb\n\nc\n```\n", "d"),
        ("````\n```\n\n````\n", "````\n```\n\n````\n", ""),
    ],
)
def test_a_blank_line_ends_a_block_but_not_code(text: str, finished: str, open_: str) -> None:
    assert split(text) == (finished, open_)


@pytest.mark.parametrize("length", [1, 5, 1000])
def test_the_whole_answer_is_left_on_the_screen(length: int) -> None:
    shown = io.StringIO()
    stream = MarkdownStream(Console(file=shown, width=60))

    for start in range(0, len(TEXT), length):
        stream.add(TEXT[start : start + length])
    stream.end()

    text = shown.getvalue()
    assert [text.count(word) for word in ("Title", "Some words here.", "a = 1", "b = 2", "one", "two")] == [1] * 6


def test_what_controls_a_terminal_is_left_out() -> None:
    assert printable("a\x1b[31mb\x07\x9bc\td\r\ne") == "a[31mbc\td\ne"
