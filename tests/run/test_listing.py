"""The list of runs: narrowed by time, sorted by any column, shown with any columns, and whole as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from empty_registry import open_empty
from known_runs import new_run, settings, train

from mlxops import registry, times
from mlxops.errors import BadRequest
from mlxops.registry import Registry

Typed = Callable[[str], tuple[int, str, str]]
NOW = datetime(2026, 11, 22, 16, 20, 10, tzinfo=UTC)


def begun_at(db: Registry, name: str, moment: str) -> None:
    run = new_run(db, name)
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET created_at = ? WHERE id = ?", (moment, run.id))


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Give this process a time zone for the test."""
    before = os.environ.get("TZ")

    def change(name: str | None) -> None:
        os.environ.pop("TZ", None)
        if name is not None:
            os.environ["TZ"] = name
        time.tzset()

    yield change
    change(before)


@pytest.fixture
def runs() -> None:
    with open_empty(settings().project.registry_path) as db:
        train(db, "heron", [(10, 3.0)], [(10, 2.5, 0.1)], tags=["first", "good"])
        train(db, "otter", [(10, 2.0)], [(10, 2.1, 0.1)], note="the second")
        new_run(db, "wren")


def names(answer: tuple[int, str, str]) -> list[str]:
    return [row["name"] for row in json.loads(answer[1])]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", ["wren", "otter", "heron"]),
        ("--sort created_at", ["heron", "otter", "wren"]),
        ("--sort best_validation_loss", ["otter", "heron", "wren"]),
        ("--sort -best_validation_loss", ["heron", "otter", "wren"]),
        ("--sort=-name --limit 2", ["wren", "otter"]),
        ("--sort name --status completed", ["heron", "otter"]),
    ],
)
def test_runs_are_sorted_by_any_column_and_those_without_a_value_come_last(
    mlxops: Typed, runs: None, options: str, found: list[str]
) -> None:
    assert names(mlxops(f"runs --json {options}")) == found


def test_a_list_cut_in_another_order_does_not_call_its_runs_the_newest(mlxops: Typed, runs: None) -> None:
    assert mlxops("runs --json --sort name --limit 1")[2] == "these are the first 1: --limit shows more\n"


def test_chosen_columns_are_shown_in_their_order_and_json_has_all(mlxops: Typed, runs: None) -> None:
    shown = mlxops("runs --columns tags,name,best_validation_loss --sort name")[1]
    (first, *_) = json.loads(mlxops("runs --json --columns name")[1])

    assert [line.split() for line in shown.splitlines()] == [
        ["tags", "name", "best_validation_loss"],
        ["─" * len(shown.splitlines()[1])],
        ["first,good", "heron", "2.5"],
        ["-", "otter", "2.1"],
        ["-", "wren", "-"],
    ]
    assert {"fingerprint", "eta_seconds", "note"} <= set(first)


@pytest.mark.parametrize("option", ["--sort", "--columns"])
def test_a_column_that_is_none_is_named_with_the_nearest(mlxops: Typed, runs: None, option: str) -> None:
    code, out, err = mlxops(f"runs {option} best_validation_los")

    assert (code, out) == (2, "")
    assert err == "runs have no column 'best_validation_los'\nhint: did you mean 'best_validation_loss'?\n"


def test_a_list_narrowed_to_nothing_does_not_say_that_there_are_no_runs(mlxops: Typed, runs: None) -> None:
    assert mlxops("runs --tag bad")[1] == "no run is like that: `mlx-toolkit runs` shows all\n"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--since 2026-11-20", ["third", "second"]),
        ("--until 2026-11-20", ["second", "first"]),
        ("--since 2026-11-20 --until 2026-11-20", ["second"]),
        ("--since '2026-11-20 12:00' --until '2026-11-20 11:59'", []),
        ("--until '2026-11-20 12:00'", ["second", "first"]),
        ("--since 2026-11-20T12:00:01Z", ["third"]),
    ],
)
def test_runs_are_found_by_when_they_began(
    mlxops: Typed, zone: Callable[[str], None], options: str, found: list[str]
) -> None:
    zone("UTC")
    with registry.open_registry(settings().project.registry_path) as db:
        begun_at(db, "first", "2026-11-19T23:59:59.999Z")
        begun_at(db, "second", "2026-11-20T12:00:00.500Z")
        begun_at(db, "third", "2026-11-21T00:00:00.000Z")

    assert names(mlxops(f"runs --json {options}")) == found


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("3d", "2026-11-19T16:20:10+00:00", "2026-11-19T16:20:10+00:00"),
        ("1d 12h", "2026-11-21T04:20:10+00:00", "2026-11-21T04:20:10+00:00"),
        ("30m", "2026-11-22T15:50:10+00:00", "2026-11-22T15:50:10+00:00"),
        ("1.5h", "2026-11-22T14:50:10+00:00", "2026-11-22T14:50:10+00:00"),
        ("2026-11-22", "2026-11-21T23:00:00+00:00", "2026-11-22T23:00:00+00:00"),
        ("2026-07-01", "2026-06-30T22:00:00+00:00", "2026-07-01T22:00:00+00:00"),
        ("2026-11-22 09:30", "2026-11-22T08:30:00+00:00", "2026-11-22T08:31:00+00:00"),
        ("2026-11-22T09:30:15Z", "2026-11-22T09:30:15+00:00", "2026-11-22T09:30:16+00:00"),
        ("2026-11-22T09:30+05:30", "2026-11-22T04:00:00+00:00", "2026-11-22T04:01:00+00:00"),
        ("9:30", "2026-11-22T08:30:00+00:00", "2026-11-22T08:31:00+00:00"),
    ],
)
def test_a_moment_without_a_zone_is_that_of_this_machine(
    zone: Callable[[str], None], text: str, begin: str, end: str
) -> None:
    zone("Europe/Berlin")

    assert [each.isoformat() for each in times.moment(text, NOW, "--since")] == [begin, end]


@pytest.mark.parametrize("text", ["tomorrow", "3x", "2026-13-01", "25:00", "-3d", "99999999999w", "9999-12-31"])
def test_what_is_no_moment_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BadRequest, match="--since"):
        times.moment(text, NOW, "--since")


def test_long_names_keep_the_part_that_tells_them_apart_and_each_run_has_its_number(
    mlxops: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with registry.open_registry(settings().project.registry_path) as db:
        for rate in ("1e-5", "2e-5"):
            train(db, f"smollm2-135m-instruct-on-questions-rank-16-lr-{rate}", [(10, 3.0)], [(10, 2.5, 0.1)])

    out = mlxops("runs")[1]
    chosen = mlxops("runs --columns name,model,data,status,created_at")[1]

    assert out.splitlines()[0].split()[:3] == ["id", "name", "status"]
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["2", "smollm2-…-rank-16-lr-2e-5"],
        ["1", "smollm2-…-rank-16-lr-1e-5"],
    ]
    assert max(map(len, out.splitlines())) <= 80
    assert [line.split()[0][-5:] for line in chosen.splitlines()[2:]] == ["-2e-5", "-1e-5"]
