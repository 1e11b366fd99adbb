"""Names and texts: one check for all, with the reason that applies, wherever a person gives one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from known_runs import new_run, settings
from tiny_models import make_tiny

from mlxops import registry
from mlxops.errors import BadRequest
from mlxops.texts import LONGEST_TEXT, MODEL, PROJECT, RUN, TAG, check_text, shown, why_unfit

Typed = Callable[[str], tuple[int, str, str]]
LATIN = "caf\udce9"  # what Python makes of the byte E9, which is no UTF-8


@pytest.mark.parametrize(
    ("name", "rule", "reason"),
    [
        ("sandy crane 'é' 日本 \u200d", RUN, None),
        ("lr1e-5_" * 40, RUN, "it is 280 bytes long, and 200 is the most"),
        ("日" * 67, RUN, "it is 201 bytes long, and 200 is the most"),
        (LATIN, RUN, "it has bytes that are no UTF-8"),
        (" ", RUN, "it is empty"),
        ("a ", RUN, "it begins or ends with a space"),
        ("a:b", RUN, "it has ':'"),
        ("a/b\\c", RUN, "it has '/' and '\\\\'"),
        ("a\x1b[31m", RUN, "it has the character \\x1b, which cannot be shown"),
        ("a\u202eb", RUN, "it has the character \\u202e, which cannot be shown"),
        (".hidden", RUN, "it begins with '.'"),
        ("latest", RUN, "it stands for the newest run"),
        ("Latest", RUN, "it stands for the newest run"),
        ("latest", TAG, None),
        ("a,b", TAG, "it has ','"),
        ("sample", MODEL, "it stands for the sample model"),
        ("_x", MODEL, "it begins with '_'"),
        ("-x", PROJECT, "it begins with '-'"),
    ],
)
def test_a_name_that_is_refused_is_refused_for_what_is_wrong_with_it(name: str, rule: object, reason: str) -> None:
    assert why_unfit(name, rule) == reason


@pytest.mark.parametrize("text", ["a\x1b[31m", LATIN, "a" * (LONGEST_TEXT + 1)])
def test_a_text_that_cannot_be_stored_or_shown_is_refused(text: str) -> None:
    assert check_text("two\nlines\twith ü", "the note") == "two\nlines\twith ü"
    with pytest.raises(BadRequest, match="the note has"):
        check_text(text, "the note")


def test_a_long_name_is_shown_by_its_ends_and_what_is_no_utf_8_by_its_numbers() -> None:
    assert (shown(LATIN), shown("\ud800")) == ("'caf\\xe9'", "'\\ud800'")
    assert shown("a" * 300 + "b") == repr("a" * 50 + "…" + "a" * 29 + "b")


@pytest.mark.parametrize("name", ["a:b", "latest", LATIN, "x" * 201, "a\x07"])
def test_all_who_take_the_name_of_a_run_refuse_it_for_the_same_reason(name: str, mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron")
    make_tiny(Path("models/tiny"))
    Path("log.txt").write_text("Iter 1: Train loss 2.0, Learning Rate 1e-5\n", encoding="utf-8")
    typed = shlex.quote(name)
    commands = (
        f"lora --model tiny --name {typed} --preview",
        f"lora --model tiny --name {typed}",
        f"finetune --model tiny --name {typed}",
        f"run.import log.txt --name {typed}",
    )

    answers = [mlxops(each) for each in commands]

    reason = why_unfit(name, RUN)
    refused = "has bytes that are no UTF-8" if name == LATIN else f"cannot be the name of a run: {reason}"
    assert [(code, refused in err) for code, _, err in answers] == [(2, True)] * len(commands), answers
    assert {each.name for each in Path.cwd().iterdir()} == {"models", "log.txt", "runs.db"}


@pytest.mark.parametrize(
    "words",
    [
        f"lora --model tiny --data {LATIN}",
        f"lora --model {LATIN}",
        f"lora --model tiny --adapter-path {LATIN}",
        f"lora --model tiny --note {LATIN}",
        f"lora --model tiny --tag {LATIN}",
        """lora --model tiny --chat-template-config '{"a": ["\\udce9"]}'""",
        f"run.note heron --text {LATIN}",
        f"run.tag heron --add good,{LATIN}",
        f"run.show {LATIN}",
        f"runs --text {LATIN}",
        f"init {LATIN}",
        f"model.import {LATIN}.gguf",
        f"data.check {LATIN}",
        f"sql {LATIN}",
    ],
)
def test_bytes_that_are_no_utf_8_are_a_wrong_request_wherever_they_stand(words: str, mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron")

    code, out, err = mlxops(words)

    assert (code, "bytes that are no UTF-8: '" in err) == (2, True), out + err


def test_a_note_and_a_tag_are_refused_before_a_model_is_loaded(mlxops: Typed) -> None:
    make_tiny(Path("models/tiny"))

    note = mlxops("lora --model tiny --note 'a\x1b[31m'")
    tag = mlxops(f"lora --model tiny --tag {'x' * 201}")

    assert (note[0], "the note has the character \\x1b" in note[2]) == (2, True), note
    assert (tag[0], "cannot be the name of a tag: it is 201 bytes long" in tag[2]) == (2, True), tag
