"""Tags and notes: shown, added, taken away, and nothing written where nothing was said."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from empty_registry import open_empty
from known_runs import new_run, settings

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _runs() -> None:
    with open_empty(settings().project.registry_path) as db:
        new_run(db, "heron", tags=["first"], note="a start")
        new_run(db, "otter")


def tags_of(name: str) -> list[str]:
    with registry.open_read_only(Path("runs.db")) as db:
        return list(registry.find_run(db, name)["tags"])


def test_tags_are_added_to_and_taken_from_several_runs_at_once(mlxops: Typed) -> None:
    answer = mlxops("run.tag heron,otter --add good,long --add best --remove first")

    assert answer == (0, "heron: best, good, long\notter: best, good, long\n", "")
    assert tags_of("heron") == tags_of("otter") == ["best", "good", "long"]


def test_a_tag_that_is_there_already_is_there_once(mlxops: Typed) -> None:
    assert mlxops("run.tag heron --add first") == (0, "heron: first\n", "")


def test_tags_are_shown_where_none_is_named(mlxops: Typed) -> None:
    assert mlxops("run.tag latest")[1] == "otter: no tags\n"
    assert json.loads(mlxops("run.tag heron --json")[1]) == [{"run": "heron", "tags": ["first"]}]


def test_a_run_that_is_not_there_leaves_the_others_untagged(mlxops: Typed) -> None:
    code, _, err = mlxops("run.tag heron,ottr --add good")

    assert (code, err) == (2, "no run 'ottr'\nhint: did you mean 'otter'?\n")
    assert tags_of("heron") == ["first"]


def test_a_note_is_shown_written_and_taken_away(mlxops: Typed) -> None:
    answers = [
        mlxops(f"run.note heron {text}")[1] for text in ("", "--text 'it worked, ön the second try'", "--remove")
    ]

    assert answers == ["heron: a start\n", "heron: it worked, ön the second try\n", "heron: no note\n"]
    assert json.loads(mlxops("run.note heron --json")[1]) == {"run": "heron", "note": None}


@pytest.mark.parametrize("command", ["run.tag heron --add x", "run.note heron --text x", "run.note heron"])
def test_without_a_registry_nothing_is_made(mlxops: Typed, command: str) -> None:
    Path("runs.db").unlink()

    code, _, err = mlxops(command)

    assert code == 2
    assert err.startswith("there is no registry")
    assert not Path("runs.db").exists()


def test_a_note_is_read_from_standard_input(mlxops: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for given in (b"two\r\nlines \xc3\xb6\n", b" \n", b"caf\xe9", b"\x1b[31m"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        answers.append(mlxops("run.note heron --text - --json"))

    assert json.loads(answers[0][1]) == {"run": "heron", "note": "two\nlines ö"}
    assert [(code, err.splitlines()[0]) for code, _, err in answers[1:]] == [
        (2, "the note is empty"),
        (2, "the note has bytes that are no UTF-8: 'caf\\xe9'"),
        (2, "the note has the character \\x1b, which cannot be shown"),
    ]
    assert mlxops("run.note heron --text a --remove")[0] == 2


def test_words_about_a_run_are_no_work_on_it(mlxops: Typed) -> None:
    with registry.open_registry(Path("runs.db")) as db:
        db.connection.execute("UPDATE runs SET updated_at = '2020-01-01T00:00:00.000Z'")

    for words in ("run.tag heron --add good", "run.note heron --text more", "run.rename heron tern"):
        assert mlxops(words)[0] == 0

    assert {row["updated_at"] for row in json.loads(mlxops("runs --json")[1])} == {"2020-01-01T00:00:00.000Z"}
