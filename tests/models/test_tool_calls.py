"""Calls of tools and stops, told apart from text that comes in pieces of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlxops.models.tokenizer import load_tokenizer
from mlxops.models.tool_calls import Call, CallFormat, WordSplitter, format_of

FORMAT = CallFormat(start="<tool_call>", end="</tool_call>", parser=lambda text, tools: json.loads(text))
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": "zwölf"}}</tool_call>'
ADD = Call(name="add", arguments='{"a": 1, "b": "zwölf"}')


def split(text: str, size: int, **options: Any) -> list[str | Call]:
    """What comes out of a text in pieces of so many characters, texts that follow each other put together."""
    splitter = WordSplitter(**options)
    found: list[str | Call] = []
    parts = [each for start in range(0, len(text), size) for each in splitter.feed(text[start : start + size])]
    for part in [*parts, *splitter.finish()]:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("just words <tool", ["just words <tool"]),
        (f"Let me see.\n{CALL}", ["Let me see.\n", ADD]),
        (CALL + CALL, [ADD, ADD]),
        (f"{CALL} and then", [ADD, " and then"]),
        (CALL.removesuffix("</tool_call>"), [ADD]),
        ("<tool_call>no JSON</tool_call>!", ["<tool_call>no JSON</tool_call>!"]),
        ('<tool_call>["x"]</tool_call>', ['<tool_call>["x"]</tool_call>']),
        ('<tool_call>{"name": "cut', ['<tool_call>{"name": "cut']),
    ],
)
def test_calls_are_taken_out_and_what_is_none_stays_text(text: str, parts: list[object], size: int) -> None:
    assert split(text, size, calls=FORMAT) == parts


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_nothing_comes_out_from_the_first_stop_on(size: int) -> None:
    assert split("one, two; three", size, stop=["; ", "never", ", "]) == ["one"]
    assert split("one; tw", size, stop=["; two"]) == ["one; tw"]
    assert split("aab", size, stop=["ab"]) == ["a"]


def test_the_chat_template_tells_the_form_of_calls(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    before = format_of(tokenizer)
    tokenizer.chat_template += "{# <tool_call> tool_call.name #}"

    found = format_of(tokenizer)

    assert before is None
    assert found is not None
    assert found.read('{"name": "add"}', []) == [Call(name="add", arguments="{}")]
