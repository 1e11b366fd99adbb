"""A question and its answer, and nothing else on stdout: arguments, pipes, one after the other, JSON by a schema."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_python
from ready_programs import run_forked

Query = Callable[..., tuple[int, str, str]]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "large": {"type": "boolean"}, "n": {"enum": [1, 22]}},
    "required": ["city", "large", "n"],
    "additionalProperties": False,
}


@pytest.fixture
def query(mlxops: Any, monkeypatch: pytest.MonkeyPatch, tuned_project: Path) -> Query:
    """`mlx-toolkit query` in the tuned project, with bytes at standard input."""

    def run(options: str, content: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, out, err = mlxops(f"query {options}")
        return code, out, err

    return run


@pytest.fixture
def schema(tuned_project: Path) -> Path:
    file = tuned_project / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    return file


@pytest.mark.slow
def test_the_answer_is_all_that_is_written(query: Query) -> None:
    code, out, err = query("tiny -p Hello --max-tokens 8")
    (said,) = [json.loads(line) for line in query("tiny -p Hello --max-tokens 8 --json")[1].splitlines()]

    assert (code, err) == (0, "")
    assert out.strip() == said["answer"]
    assert out.endswith("\n")


@pytest.mark.slow
def test_a_process_of_its_own_writes_the_answer_and_nothing_else(tuned_project: Path) -> None:
    command = ("-m", "mlxops", "query", "tiny", "-p", "Hello", "--max-tokens", "4")
    answers = [run_python(*command), run_forked(*command)]

    assert answers[0] == answers[1]
    assert answers[0][::2] == (0, "")
    assert len(answers[0][1].splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("question", ["it's", 'say "hi"', "$HOME `ls`", "Grüße 👩‍👩‍👧", "{{ 1 // 0 }}", "a\tb"])
def test_any_words_are_a_question(query: Query, question: str) -> None:
    import shlex

    code, out, _ = query(f"tiny -p {shlex.quote(question)} --max-tokens 2 --json")

    assert (code, json.loads(out)["prompt"]) == (0, question)


@pytest.mark.parametrize("options", ["tiny", "tiny -p -"])
def test_a_pipe_is_the_question(query: Query, options: str) -> None:
    _, out, _ = query(f"{options} --max-tokens 2 --json", b"two\nlines \xff\n")

    assert json.loads(out)["prompt"] == "two\nlines �\n"


@pytest.mark.slow
def test_questions_one_after_the_other_know_nothing_of_each_other(query: Query) -> None:
    code, out, err = query("tiny -i --max-tokens 6 --json", b"one\n\ntwo\none\n")

    first, second, third = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [each["prompt"] for each in (first, second, third)] == ["one", "two", "one"]
    assert (third["answer"], third["prompt_tokens"]) == (first["answer"], first["prompt_tokens"])


@pytest.mark.slow
def test_a_question_that_cannot_be_answered_does_not_end_the_others(query: Query) -> None:
    code, out, err = query("tiny -i --max-tokens 2 --json", b"one\n" + b"word " * 3000 + b"\ntwo\n")

    assert (code, len(out.splitlines())) == (1, 2)
    assert "1 of 3 questions could not be answered" in err


@pytest.mark.slow
def test_an_adapter_and_a_system_prompt_change_the_answer(query: Query) -> None:
    said = [
        json.loads(query(f"{options} -p Hello --max-tokens 8 --json")[1])["answer"]
        for options in ("tiny", "--run tuned", "--run tuned:4", "--adapter-path adapters/tuned", "tiny --system Hm.")
    ]

    assert said[1] == said[3]
    assert len(set(said)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--temperature 1 --seed 3", "--temperature 1 --seed 3 --draft-model tiny"])
def test_json_by_a_schema_is_valid(query: Query, schema: Path, options: str) -> None:
    code, out, err = query(f"tiny -p Hello --schema {schema.name} {options}")

    said = json.loads(out)
    assert (code, err) == (0, "")
    assert sorted(said) == ["city", "large", "n"]
    assert isinstance(said["city"], str)
    assert len(said["city"]) <= 8
    assert said["large"] in (True, False)
    assert said["n"] in (1, 22)


@pytest.mark.slow
def test_a_draft_model_gives_the_same_json(query: Query, schema: Path) -> None:
    options = f"tiny -p Hello --schema {schema.name} --temperature 1 --seed 5"

    assert query(f"{options} --draft-model tiny")[1] == query(options)[1]


def test_json_that_is_cut_is_not_written(query: Query, schema: Path) -> None:
    code, out, err = query(f"tiny -p Hello --schema {schema.name} --max-tokens 3")

    assert (code, out) == (1, "")
    assert err == "the JSON was not complete after 3 tokens\nhint: `--max-tokens` allows more\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is no JSON schema"), ('{"type": "nonsense"}', "the schema cannot be held"), (None, "no file")],
)
def test_a_schema_that_is_none_is_refused(query: Query, tuned_project: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tuned_project / "s.json").write_text(content)

    code, out, err = query("tiny -p Hello --schema s.json")

    assert (code, out) == (2, "")
    assert words in err


def test_without_its_package_a_schema_is_refused(query: Query, schema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)

    code, out, err = query(f"tiny -p Hello --schema {schema.name}")

    assert (code, out) == (2, "")
    assert err.startswith("a schema needs the package llguidance\nhint: `pip install 'mlxops[structured]'`")


@pytest.mark.parametrize(
    ("options", "words"),
    [("tiny", "the message is empty"), ("tiny -i -p Hello", "exclude each other"), ("-p Hello", "no model given")],
)
def test_a_wrong_request_ends_with_2(query: Query, options: str, words: str) -> None:
    code, out, err = query(options)

    assert (code, out) == (2, "")
    assert words in err
