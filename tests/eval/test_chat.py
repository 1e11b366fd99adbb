"""Chat through its front door: one message, lines of a pipe, commands, adapters, verdicts, and what goes wrong."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

Chat = Callable[..., tuple[int, str, str]]


@pytest.fixture
def chat(mlxops: Any, monkeypatch: pytest.MonkeyPatch, tuned_project: Path) -> Chat:
    """`mlx-toolkit chat` in the tuned project, with lines at standard input."""

    def run(options: str, *lines: str | bytes) -> tuple[int, str, str]:
        content = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, out, err = mlxops(f"chat {options}")
        return code, out, err

    return run


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def verdicts(project: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(project / "runs.db")) as db, db:
        return db.execute("SELECT run, iteration, verdict, prompt, note, model FROM verdict ORDER BY id").fetchall()


@pytest.mark.slow
def test_one_message_has_one_answer(chat: Chat) -> None:
    code, out, err = chat("tiny -p Hello --max-tokens 8 --json")

    (said,) = objects(out)
    assert code == 0
    assert (said["prompt"], said["generated_tokens"], said["finish_reason"]) == ("Hello", 8, "length")
    assert "cut at 8 tokens" in err


@pytest.mark.parametrize("typed", ["chat tiny -p Hello", "chat -p Hello tiny", "eval.chat --prompt Hello tiny"])
def test_a_model_and_a_message_may_be_typed_in_any_order(mlxops: Any, tuned_project: Path, typed: str) -> None:
    code, out, _ = mlxops(f"{typed} --max-tokens 2 --json")

    assert (code, len(objects(out))) == (0, 1)


def test_a_dash_takes_all_of_standard_input(chat: Chat) -> None:
    _, out, _ = chat("tiny -p - --max-tokens 2 --json", "/reset is", "not a command", b"\xff here\n")

    assert objects(out)[0]["prompt"] == "/reset is\nnot a command\n� here\n"


def test_a_pipe_is_read_line_by_line_as_if_typed(chat: Chat) -> None:
    code, out, _ = chat("tiny --max-tokens 4 --json", "one", "", '"""', "two", "lines", '"""', "/exit", "never")

    first, second = objects(out)
    assert code == 0
    assert (first["prompt"], second["prompt"]) == ("one", "two\nlines")
    assert first["cached_tokens"] == 0
    # the answer may be written by other tokens than it was made of; the turn before it is never computed again
    assert second["cached_tokens"] >= first["prompt_tokens"]


def test_a_message_that_cannot_be_answered_is_told_and_the_chat_goes_on(chat: Chat) -> None:
    code, out, err = chat("tiny --max-tokens 2 --json", "/nope", "word " * 3000, "one")

    assert (code, len(objects(out))) == (1, 1)
    assert "there is no command /nope" in err
    assert "and the context of the model has 2,048" in err
    assert "2 of 3 messages could not be answered" in err


@pytest.mark.slow
def test_a_conversation_that_no_longer_fits_forgets_its_oldest_turns(chat: Chat) -> None:
    code, out, err = chat("tiny --max-tokens 2 --json", *["some words " * 60] * 12)

    said = objects(out)
    assert (code, len(said)) == (0, 12)
    assert max(each["prompt_tokens"] for each in said) <= 2046
    assert "the conversation no longer fits into the context of 2,048 tokens: the oldest" in err


def test_the_template_may_refuse_and_says_why(chat: Chat, tuned_project: Path) -> None:
    file = tuned_project / "models" / "tiny" / "chat_template.jinja"
    settings = tuned_project / "models" / "tiny" / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    content.pop("chat_template", None)
    settings.write_text(json.dumps(content))
    file.write_text("{{ raise_exception('no system role') }}")

    code, out, err = chat("tiny -p Hello --max-tokens 2")

    assert (code, out) == (2, "")
    assert err.startswith("the model's chat template refuses the conversation: no system role\n")


def test_undo_retry_and_edit_change_the_last_turn(chat: Chat) -> None:
    lines = ["one", "two", "/undo", "/retry", "/edit three", "/edit", "/save c.json"]

    chat("tiny --max-tokens 2 --temperature 0.9 --json", *lines)

    messages = json.loads(Path("c.json").read_text())["messages"]
    assert [each["content"] for each in messages if each["role"] == "user"] == ["three"]


@pytest.mark.slow
def test_retry_answers_otherwise_and_a_seed_answers_alike(chat: Chat) -> None:
    options = "tiny --max-tokens 12 --temperature 1.5 --json"
    first = [each["answer"] for each in objects(chat(options, "one", "/retry")[1])]
    again = [each["answer"] for each in objects(chat(options, "one", "/retry")[1])]

    assert first == again
    assert first[0] != first[1]


@pytest.mark.slow
def test_a_conversation_is_saved_and_continued(chat: Chat) -> None:
    chat("tiny --max-tokens 4 --system Brief.", "one", "/save c.json")

    code, out, err = chat("tiny --max-tokens 4 --json", "/load c.json", "/load nothing.json", "two")

    assert code == 1
    assert "1 turn loaded from c.json" in err
    assert "no file" in err
    assert objects(out)[0]["prompt_tokens"] > 30


def test_settings_are_shown_and_changed_and_checked(chat: Chat) -> None:
    code, out, err = chat(
        "tiny --max-tokens 2", "/set max_tokens 3", "/set temp 0.5", "/set markdown off", "/set top_q 1", "/set top_p 7"
    )

    assert code == 1
    assert out.splitlines() == ["max_tokens  3", "temperature  0.5", "markdown  off"]
    assert "there is no setting 'top_q'\nhint: did you mean `top_p`?" in err
    assert "top_p takes a number above 0 and at most 1, not 7.0" in err


@pytest.mark.slow
def test_an_adapter_is_swapped_in_place_and_answers_as_when_loaded(chat: Chat) -> None:
    def answer(options: str, *lines: str) -> str:
        return str(objects(chat(f"{options} --max-tokens 10 --json", *lines)[1])[0]["answer"])

    base, tuned, early = answer("tiny", "one"), answer("--run tuned", "one"), answer("--run tuned:4", "one")

    assert len({base, tuned, early}) == 3
    assert answer("tiny", "/adapter tuned", "one") == tuned
    assert answer("--run tuned", "/adapter tuned:4", "one") == early
    assert answer("--run tuned", "/adapter none", "one") == base


@pytest.mark.slow
def test_an_adapter_that_is_not_there_leaves_the_one_that_is(chat: Chat) -> None:
    code, out, err = chat("--run tuned --max-tokens 2 --json", "/adapter other", "/adapter tuned:5", "one", "/adapter")

    assert (code, objects(out)[0]["adapter"]) == (1, "tuned")
    assert "no run 'other'" in err
    assert "has no checkpoint at iteration 5" in err
    assert "adapter: tuned" in err


@pytest.mark.slow
def test_compare_asks_both_and_changes_nothing(chat: Chat) -> None:
    options = "--run tuned --max-tokens 6 --json"
    alone = objects(chat(options, "one", "two")[1])
    base = objects(chat("tiny --max-tokens 6 --json", "one")[1])[0]

    first, compared, second = objects(chat(options, "one", "/compare", "two")[1])

    assert (compared["base"]["answer"], compared["base"]["adapter"]) == (base["answer"], None)
    assert (compared["adapter"]["answer"], compared["adapter"]["adapter"]) == (first["answer"], "tuned")
    assert second["answer"] == alone[1]["answer"]


def test_compare_needs_an_adapter(chat: Chat) -> None:
    code, _, err = chat("tiny", "/compare one")

    assert code == 1
    assert "there is no adapter to compare with\nhint: /adapter RUN takes one" in err


@pytest.mark.slow
def test_verdicts_are_recorded_with_the_adapter_that_answered(chat: Chat, tuned_project: Path) -> None:
    chat("--run tuned:4 --max-tokens 4", "one", "/good", "/bad too short", "/adapter none", "two", "/good", "/undo")

    assert verdicts(tuned_project) == [
        ("tuned", 4, "bad", "one", "too short", "models/tiny"),
        (None, None, "good", "two", None, "models/tiny"),
    ]


def test_a_verdict_needs_an_answer(chat: Chat) -> None:
    code, _, err = chat("tiny", "/good")

    assert code == 1
    assert "there is no answer to call good" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-p Hello", "no model given"),
        ("nowhere -p Hello", "no model 'nowhere'"),
        ("tiny -p ' '", "--prompt takes a text"),
        ("tiny -p Hello --top-p 2", "--top-p takes a number above 0 and at most 1, not 2.0"),
        ("tiny -p Hello --draft-model nowhere", "no model 'nowhere'"),
    ],
)
def test_a_wrong_request_ends_with_2(chat: Chat, options: str, words: str) -> None:
    code, out, err = chat(options)

    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.slow
def test_a_draft_model_answers_the_same(chat: Chat) -> None:
    plain = objects(chat("tiny -p Hello --max-tokens 12 --json")[1])[0]
    drafted = objects(chat("tiny -p Hello --max-tokens 12 --json --draft-model tiny")[1])[0]

    assert drafted["answer"] == plain["answer"]


@pytest.mark.slow
def test_facts_are_told(chat: Chat) -> None:
    code, out, _ = chat("--run tuned --max-tokens 4", "one", "/stats", "/help", "/system Be brief.", "/system")

    assert code == 0
    assert "tokens/s, ended by length" in out
    assert "/adapter [RUN[:ITERATION]|PATH|none]" in out


@pytest.mark.slow
def test_ten_thousand_lines_through_a_pipe_are_all_taken(chat: Chat) -> None:
    code, out, err = chat("tiny --max-tokens 1 --json", *["/set seed 1"] * 9_998, "one", "two")

    prompts = [each["prompt"] for each in objects(out) if "prompt" in each]
    assert (code, prompts, len(objects(out))) == (0, ["one", "two"], 10_000), err[-300:]


@pytest.mark.slow
def test_a_model_that_never_stops_is_cut_where_its_context_ends(chat: Chat, tuned_project: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        file = tuned_project / "models" / "tiny" / name
        if file.exists():
            file.write_text(
                json.dumps({**json.loads(file.read_text()), "eos_token_id": 383, "max_position_embeddings": 96})
            )

    code, out, err = chat("tiny -p Hello --max-tokens 1000000 --json")

    (said,) = objects(out)
    assert (code, said["finish_reason"]) == (0, "length"), err
    assert said["prompt_tokens"] + said["generated_tokens"] == 96


def test_an_adapter_of_another_base_is_refused_with_its_run(chat: Chat, tuned_project: Path) -> None:
    folder = tuned_project / "models" / "other"
    shutil.copytree(tuned_project / "models" / "tiny", folder)
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(str(folder / "model.safetensors"), {name: 2 * value for name, value in weights.items()})

    code, out, err = chat("other --run tuned -p Hello")

    assert (code, out, "the adapter of run 'tuned'" in err, "was trained on another model" in err) == (
        2,
        "",
        True,
        True,
    )
