"""What RUN and RUN:PLACE mean, as pure functions, and in every task that takes a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from commands import Ended
from known_runs import new_run, settings, train

from mlxops import config, registry
from mlxops.errors import BadRequest, NotFound
from mlxops.registry import naming
from mlxops.registry.runs import find_runs

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


def test_a_name_like_no_other_comes_with_the_names_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        naming.resolve("otter", RUNS, None)
    assert caught.value.hint == "`inv runs` shows the runs there are: tiny-sandy-crane, 7, tiny-quiet-heron and 1 more"


def test_a_checkpoint_where_a_run_is_asked_for_is_told_from_a_name() -> None:
    with pytest.raises(NotFound) as caught:
        naming.resolve("crane:best", RUNS, None)
    assert caught.value.hint == "a run is asked for here and no checkpoint of it: give 'crane' alone"


@pytest.mark.parametrize("text", ["99", "", " ", "9" * 5000])
def test_a_number_or_nothing_that_no_run_has_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        naming.resolve(text, RUNS, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("run", ("run", None)),
        ("run:best", ("run", "best")),
        ("run:last", ("run", "last")),
        ("run:120", ("run", 120)),
        ("a:b", ("a:b", None)),
        ("A:B", ("A:B", None)),
        ("a:b:5", ("a:b", 5)),
    ],
)
def test_a_place_is_what_stands_behind_the_last_colon(text: str, parts: tuple[str, naming.Place | None]) -> None:
    assert naming.split_place(text, ["a:b"]) == parts


@pytest.mark.parametrize("place", ["worst", "-1", "", "9" * 5000])
def test_a_place_that_is_none_is_named(place: str) -> None:
    with pytest.raises(BadRequest, match=f"'run:{place}' names no checkpoint"):
        naming.split_place(f"run:{place}", [])


@pytest.fixture
def numbers() -> dict[str, int]:
    """Three runs with points, and the number of each."""
    with registry.open_registry(settings().project.registry_path) as db:
        for name in ("sandy-crane", "quiet-heron", "small-otter"):
            train(db, name, [(10, 3.0), (20, 2.0)], [(20, 2.5, 0.1)])
        return {row["name"]: row["id"] for row in registry.list_runs(db)}


COMMANDS = {
    "RunConfig.name": "run.show {}",
    "CompareConfig.runs": "run.compare {},otter",
    "TagConfig.name": "run.tag {} --add good",
    "NoteConfig.name": "run.note {} --text kept",
    "RenameConfig.name": "run.rename {} tern",
    "ExportConfig.run": "run.export --run {} --output points.csv",
    "ReportConfig.runs": "run.report {} --output page.html",
    "DeleteConfig.runs": "run.delete {} --yes",
    "MonitorConfig.run": "monitor --run {} --once",
    "StopConfig.run": "train.stop {}",
    "CheckpointsConfig.run": "checkpoints --run {}",
    "SqlConfig.param": "sql @attempts --param run={}",
}
"""What a registry alone answers, by the option that takes a run."""

LOADING = {
    "CheckpointsConfig.use": "checkpoints --use {}:best",
    "ChatConfig.run": "chat --run {}:best",
    "QueryConfig.run": "query --run {} --prompt hello",
    "TestConfig.run": "test --run {}:20",
    "BenchmarkConfig.run": "benchmark --run {}:20",
    "FuseConfig.run": "model.fuse --run {}:20",
    "ServeConfig.run": "eval.serve --run {}:20",
    "ResumeConfig.run": "train.resume {}",
}
"""What needs files of the run, too; `lora --from` needs a model before, and is tested with branches."""


def test_every_option_that_takes_a_run_is_tested() -> None:
    taking = {
        f"{name}.{field.name}"
        for name, each in vars(config).items()
        if dataclasses.is_dataclass(each)
        for field in dataclasses.fields(each)
        if field.name in ("run", "runs", "branch_from") or "latest" in field.metadata["help"]
    }

    assert taking == {*COMMANDS, *LOADING, "LoraConfig.branch_from"} - {"SqlConfig.param", "CheckpointsConfig.use"}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values())
@pytest.mark.parametrize("text", ["crane", "{number}"])
def test_every_task_that_takes_a_run_takes_a_part_of_its_name_and_its_number(
    mlxops: Typed, numbers: dict[str, int], command: str, text: str
) -> None:
    named = text.format(number=numbers["sandy-crane"])

    code, _, err = mlxops(command.format(named))

    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS.values(), *LOADING.values()])
def test_a_part_of_several_names_lists_them_and_changes_nothing(
    mlxops: Typed, numbers: dict[str, int], command: str
) -> None:
    before = mlxops("runs --json")[1]

    code, _, err = mlxops(command.format("r"))

    assert code == 2
    assert "'r' is part of 3 names of runs: small-otter, quiet-heron, sandy-crane\nhint: give more of the name" in err
    assert mlxops("runs --json")[1] == before


@pytest.mark.parametrize("name", [query.name for query in registry.saved_queries() if "run" in query.parameters])
def test_a_saved_query_about_a_run_takes_a_part_of_its_name(mlxops: Typed, numbers: dict[str, int], name: str) -> None:
    assert mlxops(f"sql @{name} --param run=crane")[0] == 0


def test_two_runs_of_a_saved_query_are_named_by_parts(mlxops: Typed, numbers: dict[str, int]) -> None:
    assert mlxops(f"sql @settings --param one=crane --param other={numbers['quiet-heron']}")[0] == 0


def test_a_name_with_commas_that_a_run_has_is_one_in_a_list() -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        for number, name in enumerate(("a,b", "c", "a", "x, y,z")):
            new_run(db, f"new-{number}")
            db.connection.execute("UPDATE runs SET name = ? WHERE name = ?", (name, f"new-{number}"))

        found = {
            text: [run["name"] for run in find_runs(db, [each.strip() for each in text.split(",")])]
            for text in ("a,b,c", "c,a,b", "a,c", "x, y,z,a")
        }

    assert found == {
        "a,b,c": ["a,b", "c"],
        "c,a,b": ["c", "a,b"],
        "a,c": ["a", "c"],
        "x, y,z,a": ["x, y,z", "a"],
    }
