"""An array of rows is read one element at a time, whatever stands in its strings and wherever a chunk ends."""

import io
import json
import random
import tracemalloc

import pytest

from mlxops.data.json_array import BrokenArray, elements

TEXTS = ["", "a", "é日", '"', "\\", '\\"', "[{,}]", "\n", "\u2028", '"},{"', "x" * 50]


def some_value(chance: random.Random, depth: int = 0) -> object:
    kind = chance.randrange(6 if depth < 3 else 4)
    if kind == 4:
        return [some_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 5:
        return {chance.choice(TEXTS): some_value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return (chance.choice(TEXTS), chance.randrange(-5, 5), None, True)[kind]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_any_array_gives_its_elements_whatever_the_size_of_a_chunk(indent, chunk):
    chance = random.Random(3)
    rows = [some_value(chance) for _ in range(200)]
    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode()

    found = list(elements(io.BytesIO(b" \n" + text + b"\n \n"), chunk))

    assert [json.loads(element.text) for element in found] == rows
    assert [element.number for element in found] == list(range(1, 201))


def test_an_element_knows_the_line_it_begins_in():
    text = b'\n[\n {"a": 1},\n\n {"b":\n 2}, {"c": 3}\n,4]'

    assert [(element.line, element.text) for element in elements(io.BytesIO(text), 3)] == [
        (3, b'{"a": 1}'),
        (5, b'{"b":\n 2}'),
        (6, b'{"c": 3}'),
        (7, b"4"),
    ]


@pytest.mark.parametrize("chunk", [1, 1000])
@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ('[{"a": 1}, {"b": ', 2, "the array has no end: the file is cut off, or a quote is missing"),
        ("[", 1, "the array has no end: the file is cut off, or a quote is missing"),
        ('[{"a": "x}, {"b": 1}]', 1, "the array has no end: the file is cut off, or a quote is missing"),
        ("[1, 2,\n]", 3, "there is a comma, and no row"),
        ("[1,, 2]", 2, "there is a comma, and no row"),
        ("[, 1]", 1, "there is a comma, and no row"),
        ("[1}", 1, "a bracket is closed that was not opened"),
        ("[1]\n\n[2]", 2, "more follows after the end of the array (line 3)"),
        ("[]x", 2, "more follows after the end of the array (line 1)"),
    ],
)
def test_a_broken_array_is_told_with_the_row_where_it_breaks(text, number, reason, chunk):
    with pytest.raises(BrokenArray) as caught:
        list(elements(io.BytesIO(text.encode()), chunk))

    assert (caught.value.number, str(caught.value)) == (number, reason)


@pytest.mark.parametrize("text", ["[]", " [ \n ] \n"])
def test_an_empty_array_has_no_elements(text):
    assert list(elements(io.BytesIO(text.encode()), 1)) == []


@pytest.mark.slow
def test_a_large_array_is_never_in_memory_as_a_whole(tmp_path):
    row = json.dumps({"text": "x" * 1000}).encode()
    (tmp_path / "a.json").write_bytes(b"[" + b",\n".join([row] * 8000) + b"]")

    with (tmp_path / "a.json").open("rb") as stream:
        tracemalloc.start()
        count = sum(1 for _ in elements(stream, 1 << 16))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert count == 8000
    assert peak < 1 << 20
