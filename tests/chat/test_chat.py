"""What a person types, the turns of a conversation, and thoughts told from words: without a model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import ROOT

from mlxops.chat.commands import COMMANDS, Command, is_complete, messages_in, parse
from mlxops.chat.session import Session, Turn
from mlxops.chat.thoughts import ThoughtSplitter
from mlxops.errors import BadRequest, NotFound, Refused

# Commands


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hello", "hello"),
        ("  /reset ", Command(name="reset")),
        ("/SET temperature 0.7", Command(name="set", argument="temperature 0.7")),
        ("/edit two\nlines", Command(name="edit", argument="two\nlines")),
        ("/quit", Command(name="exit")),
        ("//etc/passwd", "/etc/passwd"),
        ("1/2", "1/2"),
    ],
)
def test_a_text_is_a_message_or_a_command(typed: str, meant: object) -> None:
    assert parse(typed) == meant


@pytest.mark.parametrize(("typed", "near"), [("/rest", "/reset"), ("/quti", "/exit"), ("/xyzzy", "/help lists")])
def test_an_unknown_command_names_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(BadRequest, match=f"there is no command {typed}") as raised:
        parse(typed)

    assert near in (raised.value.hint or "")


def test_lines_are_messages_unless_they_go_on() -> None:
    lines = ["one\n", "\n", "two\\\n", "more\r\n", '"""\n', "a\n", "\n", "b\n", '"""\n', "last\\"]

    assert list(messages_in(lines)) == ["one", "two\nmore", "a\n\nb", "last"]


def test_quotes_that_are_never_closed_end_with_the_input() -> None:
    assert list(messages_in(['"""', "a", "b"])) == ["a\nb"]


@pytest.mark.parametrize(
    ("text", "whole"), [("hello", True), ("hello\\", False), ('"""\nhello', False), ('"""\nhello\n"""', True)]
)
def test_enter_sends_what_is_complete(text: str, whole: bool) -> None:
    assert is_complete(text) is whole


# Turns


@pytest.fixture
def session() -> Session:
    return Session(
        system="Be brief.", turns=[Turn(question="Who?", answer="You."), Turn(question="Why?", answer="So.")]
    )


def test_a_model_is_told_the_turns_that_fit(session: Session) -> None:
    session.first = 1

    assert [message["content"] for message in session.messages("When?")] == ["Be brief.", "Why?", "So.", "When?"]


def test_a_thought_is_not_told_again() -> None:
    session = Session(turns=[Turn(question="Who?", answer="You.", thought="Let me see.")])

    assert session.messages() == [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "You."}]


def test_the_last_turn_is_taken_back(session: Session) -> None:
    session.first = 2

    assert session.undo().question == "Why?"
    assert (len(session.turns), session.first) == (1, 1)


def test_nothing_is_taken_back_from_an_empty_conversation() -> None:
    with pytest.raises(BadRequest, match="there is no turn to take back"):
        Session().undo()


def test_a_conversation_is_saved_and_loaded(session: Session, tmp_path: Path) -> None:
    session.turns.append(Turn(question="Où ? 👩", answer="Là.", thought="Hm."))
    session.save(tmp_path / "chat.json", {"model": "m"})
    other = Session()

    other.load(tmp_path / "chat.json")

    assert (other.system, other.turns) == (session.system, session.turns)
    assert json.loads((tmp_path / "chat.json").read_text())["model"] == "m"


def test_saving_replaces_a_conversation_and_nothing_else(session: Session, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    session.save(tmp_path / "chat.json", {})
    session.save(tmp_path / "chat.json", {})

    with pytest.raises(Refused, match="is no saved conversation"):
        session.save(tmp_path / "notes.txt", {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"messages": [1]}', '{"messages": [{"role": "assistant", "content": "a"}]}', "\udcff"]
)
def test_a_file_without_a_conversation_is_refused_and_changes_nothing(
    session: Session, tmp_path: Path, content: str
) -> None:
    (tmp_path / "f").write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(BadRequest, match="holds no conversation"):
        session.load(tmp_path / "f")
    assert len(session.turns) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        Session().load(tmp_path / "f")


# Thoughts


def parts(*pieces: str, prompt: str = "") -> list[tuple[bool, str]]:
    """What is thought (True) and what is said, joined."""
    splitter, found = ThoughtSplitter(prompt), []
    for part in [*(part for piece in pieces for part in splitter.feed(piece)), *splitter.finish()]:
        if found and found[-1][0] == part.is_thought:
            found[-1] = (part.is_thought, found[-1][1] + part.text)
        else:
            found.append((part.is_thought, part.text))
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
def test_thoughts_are_told_from_words_however_the_pieces_fall(length: int) -> None:
    text = "<think>\nI see < a > b.\n</think>\n\nHello <world>."
    pieces = [text[start : start + length] for start in range(0, len(text), length)]

    assert parts(*pieces) == [(True, "I see < a > b.\n"), (False, "Hello <world>.")]


def test_a_thought_that_the_prompt_opens_begins_at_once() -> None:
    assert parts("I see.</think>Hi", prompt="<|assistant|>\n<think>\n") == [(True, "I see."), (False, "Hi")]


def test_a_mark_in_the_middle_of_an_answer_is_a_word() -> None:
    assert parts("The tag <think> opens", " a thought.") == [(False, "The tag <think> opens a thought.")]


def test_a_thought_without_an_end_is_a_thought() -> None:
    assert parts("<think>and so on") == [(True, "and so on")]


def test_what_only_looks_like_a_mark_is_said_at_the_end() -> None:
    assert parts("<thi") == [(False, "<thi")]


def test_the_page_explains_every_command() -> None:
    page = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
    table = page.partition("## Commands")[2].partition("\n\n`//`")[0].replace("\\|", "|")

    typed = [usage for line in table.splitlines() for usage in re.findall(r"`(/[^`]*)`", line.split(" | ")[0])]
    assert typed == [each.usage for each in COMMANDS]
