"""A benchmark: what is timed, what is recorded of it, and what is said of a change since the last one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from mlxops import registry
from mlxops.analysis.change import change
from mlxops.models.generation import generate_batch, read_ahead
from mlxops.models.loading import load_for_generation
from mlxops.projects import known_projects

Typed = Callable[[str], tuple[int, str, str]]

SMALL = "--prompt-tokens 5 --generation-tokens 4 --iterations 3"


def rows(sql: str, *parameters: object) -> list[dict[str, Any]]:
    with registry.open_read_only(Path("runs.db")) as db:
        return db.rows(sql, parameters)


@pytest.mark.slow
def test_every_trial_is_recorded_and_the_figures_are_those_of_numpy(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops(f"benchmark tiny {SMALL} --json")

    said = json.loads(out)
    trials = rows("SELECT * FROM trials ORDER BY trial")
    assert (code, [trial["trial"] for trial in trials], said["trials"]) == (0, [1, 2, 3], 3), err
    assert {(each["prompt_tokens"], each["generated_tokens"], each["batch_size"]) for each in trials} == {(5, 4, 1)}
    latencies = [latency for trial in trials for latency in json.loads(trial["token_latencies"])]
    assert len(latencies) == 9
    figures = {figure["metric"]: figure for figure in said["figures"]}
    for metric, values in (
        ("time_to_first_token", [trial["time_to_first_token"] for trial in trials]),
        ("prompt_tokens_per_second", [trial["prompt_tokens_per_second"] for trial in trials]),
        ("generation_tokens_per_second", [trial["generation_tokens_per_second"] for trial in trials]),
        ("token_latency", latencies),
        ("peak_memory", [trial["peak_memory"] for trial in trials]),
    ):
        found = figures[metric]
        assert found["mean"] == pytest.approx(numpy.mean(values))
        assert found["standard_deviation"] == pytest.approx(numpy.std(values, ddof=1), rel=1e-9, abs=1e-12)
        assert [found["median"], found["percentile_90"], found["percentile_99"]] == [
            numpy.percentile(values, share, method="inverted_cdf") for share in (50, 90, 99)
        ]
    slope = numpy.polyfit([1, 2, 3], [trial["time_to_first_token"] for trial in trials], 1)[0]
    assert figures["time_to_first_token"]["drift"] == pytest.approx(2 * slope / figures["time_to_first_token"]["mean"])


@pytest.mark.slow
def test_speeds_are_tokens_over_the_time_they_took(mlxops: Typed, tuned_project: Path) -> None:
    mlxops("benchmark tiny --prompt-tokens 6 --generation-tokens 5 --batch-size 3 --iterations 1")

    (trial,) = rows("SELECT * FROM trials")
    first, last = trial["time_to_first_token"], trial["seconds"]
    assert trial["prompt_tokens_per_second"] == pytest.approx(3 * 6 / first)
    assert trial["generation_tokens_per_second"] == pytest.approx(3 * 4 / (last - first))
    assert len(json.loads(trial["token_latencies"])) == 3 * 4
    assert 0 < trial["active_memory"] <= trial["peak_memory"]


@pytest.mark.slow
def test_of_lists_each_combination_is_timed_in_turn(mlxops: Typed, tuned_project: Path) -> None:
    options = "--prompt-tokens 3,6 --context 0,8 --generation-tokens 2 --batch-size 1,2 --iterations 2"

    assert mlxops(f"benchmark tiny {options}")[0] == 0

    timed = rows("SELECT context_tokens, prompt_tokens, batch_size FROM trials ORDER BY trial")
    shapes = [tuple(each.values()) for each in timed]
    assert shapes[:8] == shapes[8:]
    assert set(shapes) == {(context, prompt, batch) for context in (0, 8) for prompt in (3, 6) for batch in (1, 2)}


@pytest.mark.slow
def test_a_run_is_timed_with_its_adapter_and_belongs_to_it(mlxops: Typed, tuned_project: Path) -> None:
    code, out, _ = mlxops(f"benchmark --run tuned:4 {SMALL}")

    (found,) = rows("SELECT DISTINCT run, model, adapter_path FROM benchmark_summary")
    assert (code, found["run"], found["model"]) == (0, "tuned", "models/tiny")
    assert found["adapter_path"].endswith("0000004_adapters.safetensors")
    assert out.startswith("models/tiny with tuned:4\n")
    shown = mlxops("run.show tuned")[1]
    assert re.search(r"\nbenchmarks\n.*: 5 prompt tokens, 4 made, read [\d.,]+ ± [\d.]+ tokens/s, made ", shown), shown
    (read, _) = json.loads(mlxops("run.show tuned --json")[1])["benchmarks"]
    assert (read["metric"], read["trials"]) == ("prompt_tokens_per_second", 3)


@pytest.mark.slow
def test_a_message_is_read_as_chat_writes_it(mlxops: Typed, tuned_project: Path) -> None:
    asked = json.loads(mlxops("query tiny -p 'Hello there' --max-tokens 1 --json")[1])

    assert mlxops("benchmark tiny --prompt 'Hello there' --max-tokens 2 --iterations 1")[0] == 0

    assert rows("SELECT prompt_tokens FROM trials") == [{"prompt_tokens": asked["prompt_tokens"]}]


@pytest.mark.slow
def test_ctrl_c_keeps_the_trials_there_are_and_marks_them(
    mlxops: Typed, tuned_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = registry.add_trial

    def add_and_stop(db: registry.Registry, benchmark_id: int, number: int, trial: registry.Trial) -> None:
        add(db, benchmark_id, number, trial)
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(registry, "add_trial", add_and_stop)

    code, out, _ = mlxops(f"benchmark tiny {SMALL}")

    assert (code, "interrupted after 2 trials of 3" in out) == (130, True)
    (found,) = rows("SELECT DISTINCT trials, is_interrupted FROM benchmark_summary")
    assert found == {"trials": 2, "is_interrupted": 1}


@pytest.mark.slow
def test_a_significant_change_since_the_last_one_is_said(mlxops: Typed, tuned_project: Path) -> None:
    command = f"benchmark tiny {SMALL} --iterations 4"
    mlxops(command)
    with closing(sqlite3.connect("runs.db")) as db, db:
        db.execute(
            "UPDATE trials SET generation_tokens_per_second = 1e9 + trial, prompt_tokens_per_second = 1e-9 * trial"
        )

    out = mlxops(command)[1]
    said = json.loads(mlxops(f"{command} --json")[1])

    assert "made tokens/s (5 + 4): 100 % less than in benchmark 1 (20" in out
    assert "prompt tokens/s (5 + 4): " in out
    assert said["before"] == 2
    assert [each["metric"] for each in said["changes"]] == ["prompt_tokens_per_second", "generation_tokens_per_second"]
    # another model, adapter or shape is none to compare with
    assert "benchmark 1" not in mlxops(f"benchmark --run tuned {SMALL}")[1]
    assert "benchmark 1" not in mlxops("benchmark tiny --prompt-tokens 2 --generation-tokens 2 --iterations 1")[1]


@pytest.mark.slow
def test_the_last_one_is_looked_for_in_all_projects_of_this_machine(
    mlxops: Typed, tuned_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"benchmark {{}} {SMALL} --iterations 4 --json"
    assert mlxops(command.format("tiny"))[0] == 0
    other = tmp_path / "other"
    shutil.copytree(tuned_project / "models" / "tiny", other / "models" / "renamed")
    (other / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    # registries that say nothing: absent, of another program, of a newer version, locked
    cache = Path(os.environ["MLXOPS_CACHE"])
    broken = {name: tmp_path / name for name in ("absent", "foreign", "newer", "locked")}
    for name, folder in broken.items():
        folder.mkdir()
        known_projects.remember(cache, folder)
        if name != "absent":
            shutil.copy("runs.db", folder / "runs.db")
    (broken["foreign"] / "runs.db").write_text("no database")
    with closing(sqlite3.connect(broken["newer"] / "runs.db")) as db:
        db.execute("PRAGMA user_version = 999")
    monkeypatch.chdir(other)
    before = contents(tuned_project)

    with closing(sqlite3.connect(broken["locked"] / "runs.db")) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with db:  # it would be the newest
            db.execute("UPDATE benchmarks SET created_at = '2999-01-01T00:00:00.000Z'")
        code, out, err = mlxops(command.format("renamed"))
    said = json.loads(out)
    shutil.rmtree(broken["locked"])
    own = json.loads(mlxops(command.format("renamed"))[1])
    shown = mlxops(f"benchmark renamed {SMALL}")[1]
    (other / "models" / "renamed" / "config.json").write_text(
        (other / "models" / "renamed" / "config.json").read_text() + "\n"
    )
    changed = json.loads(mlxops(command.format("renamed"))[1])

    assert (code, said["before"], said["before_project"]) == (0, 1, str(tuned_project)), err
    assert {each["metric"] for each in said["changes"]} == {"prompt_tokens_per_second", "generation_tokens_per_second"}
    # the one of this project is newer; and a model that was changed is another one
    assert (own["before"], own["before_project"]) == (1, None)
    assert "benchmark 2 (20" in shown
    assert (changed["before"], changed["changes"]) == (None, [])
    assert contents(tuned_project) == before


def contents(folder: Path) -> dict[str, bytes]:
    """The registry of a project and what stands beside it."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.slow
def test_csv_markdown_and_sql_have_the_rows_of_the_view(mlxops: Typed, tuned_project: Path) -> None:
    command = f"benchmark tiny {SMALL}"
    found = {form: mlxops(f"{command} --format {form}")[1] for form in ("csv", "md", "sql")}

    figures = rows("SELECT id, metric, mean FROM benchmark_summary")
    first, second, third = ([each for each in figures if each["id"] == number] for number in (1, 2, 3))
    assert [(each["metric"], float(each["mean"])) for each in csv.DictReader(io.StringIO(found["csv"]))] == [
        (each["metric"], each["mean"]) for each in sorted(first, key=lambda each: each["metric"])
    ]
    assert len(found["md"].splitlines()) == 2 + len(second)
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(found["sql"] + found["sql"])
        assert db.execute("SELECT count(*), sum(mean) FROM benchmark").fetchone() == (
            2 * len(third),
            pytest.approx(2 * sum(each["mean"] for each in third)),
        )


@pytest.mark.slow
def test_what_fits_no_model_or_cannot_be_timed_is_refused_and_leaves_no_row(mlxops: Typed, tuned_project: Path) -> None:
    refused = {
        options: mlxops(f"benchmark {options}")
        for options in (
            "tiny --prompt-tokens 0",
            "tiny --prompt-tokens 1,x",
            "tiny --prompt-tokens ,",
            "tiny --context=-1",
            "tiny --prompt-tokens 5 --prompt hello",
            "tiny --prompt ' '",
            "tiny --prompt-tokens 4000",
            "nothing",
            "--run nothing",
            "tiny --format xml",
        )
    }

    assert {options: code for options, (code, _, _) in refused.items()} == dict.fromkeys(refused, 2)
    assert all(out == "" and err for _, out, err in refused.values())
    assert rows("SELECT * FROM benchmarks") == []


@pytest.mark.slow
def test_rows_that_go_on_from_a_cache_get_the_tokens_that_they_get_without_one(tiny_model: Path) -> None:
    loaded = replace(load_for_generation(tiny_model, identify=lambda: "tiny"), stop_tokens=frozenset())
    begin, ends = [5, 9, 11, 7, 20], [[3, 4], [8, 8], [30, 2]]
    prompts = [[*begin, *end] for end in ends]

    cache = read_ahead(loaded, begin)
    with_cache = [generate_batch(loaded, prompts, max_tokens=6, cache=cache) for _ in range(2)]

    without = generate_batch(loaded, prompts, max_tokens=6)
    assert [[answer.tokens for answer in answers] for answers in with_cache] == [[each.tokens for each in without]] * 2
    assert cache.tokens == begin


def test_chance_alone_moves_equal_series_as_far_and_few_values_are_never_sure() -> None:
    assert change([1.0, 2.0], [5.0, 6.0]) is not None
    assert not change([1.0, 2.0], [5.0, 6.0]).is_significant  # type: ignore[union-attr]
    assert change([3.0] * 5, [3.0] * 5).probability == 1  # type: ignore[union-attr]
    assert change([], [1.0]) is None
    before, now = [float(each % 7) for each in range(14)], [float(each % 7) + 3 for each in range(14)]
    many = change(before, now)
    assert many is not None
    assert many.is_significant
    assert many == change(before, now)


def test_names_of_other_programs_are_taken(mlxops: Typed) -> None:
    for words in (
        "-n 1 -p x -g 1",
        "--n-prompt 4 --n-gen 2 --n-depth 0 --repetitions 1",
        "--num-trials 1 --max-tokens 2",
    ):
        code, _, err = mlxops(f"benchmark nowhere {words}")
        assert (code, "nowhere" in err) == (2, True), shlex.join([words, err])


@pytest.mark.parametrize("command", ["benchmark tiny --format csv --json", "sql 'select 1' --format csv --json"])
def test_two_forms_at_once_are_refused(mlxops: Typed, command: str) -> None:
    code, out, err = mlxops(command)

    assert (code, out, err.splitlines()[0]) == (2, "", "--json and --format say the same thing: give one of them")
