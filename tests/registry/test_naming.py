"""What RUN and RUN:PLACE mean, as pure functions, and in every task that takes a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from known_runs import settings, train

from mlxops import registry
from mlxops.errors import BadRequest, NotFound
from mlxops.registry import naming

Typed = Callable[..., Ended]
RUNS = {"tiny-sandy-crane": 12, "7": 11, "tiny-quiet-heron": 7, "sandy": 3}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("latest", "tiny-quiet-heron"),
        ("tiny-sandy-crane", "tiny-sandy-crane"),
        ("TINY-Sandy-Crane", "tiny-sandy-crane"),
        ("crane", "tiny-sandy-crane"),
        ("Heron", "tiny-quiet-heron"),
        ("12", "tiny-sandy-crane"),
        ("7", "7"),
        ("3", "sandy"),
        ("sandy", "sandy"),
    ],
)
def test_a_text_means_a_run(text: str, name: str) -> None:
    assert naming.resolve(text, RUNS, "tiny-quiet-heron") == name


def test_a_part_of_several_names_lists_them() -> None:
    with pytest.raises(BadRequest, match=r"^'tiny' is part of 2 names of runs: tiny-sandy-crane, tiny-quiet-heron$"):
        naming.resolve("tiny", RUNS, None)


def test_a_name_that_is_not_there_comes_with_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"^no run 'tiny-quiet-herom'$") as caught:
        naming.resolve("tiny-quiet-herom", RUNS, None)
    assert caught.value.hint == "did you mean 'tiny-quiet-heron'?"


@pytest.mark.parametrize("text", ["99", "", " "])
def test_a_number_or_nothing_that_no_run_has_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        naming.resolve(text, RUNS, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("run", ("run", None)),
        ("run:best", ("run", "best")),
        ("run:last", ("run", "last")),
        ("run:120", ("run", "120")),
        ("a:b", ("a:b", None)),
        ("a:b:5", ("a:b", "5")),
    ],
)
def test_a_place_is_what_stands_behind_the_last_colon(text: str, parts: tuple[str, str | None]) -> None:
    assert naming.split_place(text, ["a:b"]) == parts


def test_a_place_that_is_none_is_named() -> None:
    with pytest.raises(BadRequest, match="'run:worst' names no checkpoint"):
        naming.split_place("run:worst", [])


@pytest.fixture
def numbers() -> dict[str, int]:
    """Three runs with points, and the number of each."""
    with registry.open_registry(settings().project.registry_path) as db:
        for name in ("sandy-crane", "quiet-heron", "small-otter"):
            train(db, name, [(10, 3.0), (20, 2.0)], [(20, 2.5, 0.1)])
        return {row["name"]: row["id"] for row in registry.list_runs(db)}


@pytest.mark.parametrize(
    "command",
    [
        "run.show {}",
        "run.compare {},otter",
        "run.tag {} --add good",
        "run.note {} --text kept",
        "run.export --run {} --output points.csv",
        "run.report {} --output page.html",
        "monitor --run {} --once",
        "checkpoints --run {}",
        "sql @attempts --param run={}",
        "train.stop {}",
        "run.delete {} --yes",
    ],
)
@pytest.mark.parametrize("text", ["crane", "{number}"])
def test_every_task_that_takes_a_run_takes_a_part_of_its_name_and_its_number(
    mlxops: Typed, numbers: dict[str, int], command: str, text: str
) -> None:
    named = text.format(number=numbers["sandy-crane"])

    code, _, err = mlxops(command.format(named))

    assert code == 0, err


def test_a_part_of_several_names_changes_nothing(mlxops: Typed, numbers: dict[str, int]) -> None:
    code, _, err = mlxops("run.delete r --yes")

    assert code == 2
    assert "small-otter, quiet-heron, sandy-crane" in err
    assert len(json.loads(mlxops("runs --json")[1])) == 3
    assert Path("runs.db").exists()
