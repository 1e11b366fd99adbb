"""Tags and notes: shown, added, taken away, and nothing written where nothing was said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from known_runs import new_run, settings

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _runs() -> None:
    with registry.open_registry(settings().project.registry_path) as db:
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
        mlxops(f"run.note heron {text}")[1] for text in ("", "--text 'it worked, ön the second try'", "--text -")
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
