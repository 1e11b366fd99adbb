"""Comparing runs of known figures: settings, losses at equal places, whether a difference is real, speed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from known_runs import LINE, begin, new_run, report, train

from mlxops import registry
from mlxops.analysis.align import common_places, value_at
from mlxops.analysis.significance import above_lowest
from mlxops.registry import Registry

Typed = Callable[[str], tuple[int, str, str]]


def compared(mlxops: Typed, command: str) -> dict[str, Any]:
    code, out, err = mlxops(f"run.compare {command} --json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_settings_that_differ_stand_side_by_side_and_with_all_the_others_too(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE)
    other = {"model": "models/other", "model_identity": "n" * 64}
    train(db, "otter", LINE, config={"learning_rate": 1e-3, "lora_keys": ["q"]}, **other)

    differing = compared(mlxops, "heron,otter")["settings"]
    every = {row["name"]: row for row in compared(mlxops, "heron,otter --all")["settings"]}

    assert {row["name"]: row["values"] for row in differing} == {
        "model": ["models/tiny", "models/other"],
        "model_identity": ["m" * 64, "n" * 64],
        "learning_rate": [1e-5, 1e-3],
        "lora_keys": [[], ["q"]],
    }
    assert (every["lora_rank"]["values"], every["lora_rank"]["differs"]) == ([8, 8], False)
    assert every["mlx"]["kind"] == "environment"


def test_what_a_run_is_called_is_no_setting(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, note="one", tags=["a"], config={"name": "heron", "tag": ["a"]})
    train(db, "otter", LINE, config={"name": "otter", "json": True})

    assert compared(mlxops, "heron,otter")["settings"] == []


def test_runs_that_are_the_same_are_said_to_be(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, [(30, 2.5, 0.1)])
    train(db, "otter", LINE, [(30, 2.5, 0.1)])
    train(db, "wren", LINE, [(30, 2.5000001, 0.1)])

    said = mlxops("run.compare heron,otter")[1]
    nearly = mlxops("run.compare heron,otter,wren")[1]

    assert "the settings are the same in all of them\nevery loss is the same to the last bit\n" in said
    assert "the settings are the same" in nearly
    assert "last bit" not in nearly


def test_losses_at_equal_iterations_lie_on_the_line_between_points(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE)
    train(db, "otter", [(15, 8.0), (25, 6.0), (29, 2.0)])

    places = compared(mlxops, "heron,otter")["places"]["train_loss"]

    assert {row["at"]: row["values"] for row in places} == {
        15: [3.5, 8.0],
        17: [3.3, 7.6],
        19: [3.1, 7.2],
        21: [2.9, 6.8],
        23: [2.7, 6.4],
        25: [2.5, 6.0],
        27: [2.3, 4.0],
        29: [2.1, 2.0],
    }


def test_validation_losses_are_measured_ones_at_iterations_that_runs_have_in_common(
    mlxops: Typed, db: Registry
) -> None:
    train(db, "heron", LINE, [(10, 4.5, 0.1), (20, 3.5, 0.1), (30, 2.5, 0.1)])
    train(db, "otter", LINE, [(0, 5.0, 0.1), (15, 4.0, 0.1), (20, 3.0, 0.1), (30, 2.0, 0.1)])
    train(db, "wren", LINE, [(0, 5.0, 0.1), (20, 3.2, 0.1)])

    by_tokens = compared(mlxops, "heron,otter,wren --by tokens")["places"]["validation_loss"]

    assert {row["at"]: row["values"] for row in by_tokens} == {
        0: [None, 5.0, 5.0],
        20: [3.5, 3.0, 3.2],
        30: [2.5, 2.0, None],
    }
    assert (
        "iterations  A      B    \n────────────────────────\n20          3.500  3.000"
        in mlxops("run.compare heron,otter --by tokens")[1]
    )


def test_settings_that_do_the_same_are_the_same(mlxops: Typed, db: Registry, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "models/tiny")
    shutil.copytree(tiny_model, "models/copy")
    other = {"num_layers": 4, "optimizer_config": {"sgd": {"momentum": 0.9}}, "warmup_init": 1e-6, "epochs": 2}
    train(db, "heron", LINE, config={"num_layers": -1, "lora_keys": ["a", "b"]})
    train(db, "otter", LINE, config={**other, "lora_keys": ["b", "a"]}, model="models/copy")
    train(db, "wren", LINE, config={"num_layers": 3, "lora_keys": ["a", "b"]})

    assert compared(mlxops, "heron,otter")["settings"] == []
    assert "the settings are the same in all of them" in mlxops("run.compare heron,otter")[1]
    assert [row["name"] for row in compared(mlxops, "otter,wren")["settings"]] == ["num_layers"]


def test_by_tokens_a_run_of_larger_batches_is_as_far_with_fewer_iterations(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, tokens=10)
    train(db, "otter", [(5, 4.0), (10, 3.0), (15, 2.0)], tokens=20)

    found = compared(mlxops, "heron,otter --by tokens")

    assert found["same_losses"] is False
    assert [row["values"][0] for row in found["places"]["train_loss"]] == pytest.approx(
        [row["values"][1] for row in found["places"]["train_loss"]]
    )
    assert found["curves"][1]["train_loss"] == [[100.0, 4.0], [200.0, 3.0], [300.0, 2.0]]


def test_by_time_the_pause_between_attempts_does_not_count(mlxops: Typed, db: Registry) -> None:
    run = new_run(db, "heron")
    attempts = [begin(db, run), begin(db, run, from_iteration=10)]
    report(db, run, attempts[1], [(10, 3.0), (20, 2.0)])
    train(db, "otter", LINE)
    times = [("00:00:10", "00:01:10"), ("09:00:00", "09:00:30")]
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET created_at = '2026-11-22T00:00:00.000Z' WHERE id = ?", (run.id,))
        for attempt, (start, end) in zip(attempts, times, strict=True):
            moments = (f"2026-11-22T{start}.000Z", f"2026-11-22T{end}.000Z", attempt)
            connection.execute("UPDATE attempts SET started_at = ?, ended_at = ? WHERE id = ?", moments)
        elapsed = [(70_000, run.id, 10), (9 * 3_600_000 + 20_000, run.id, 20)]
        connection.executemany("UPDATE metrics SET elapsed_ms = ? WHERE run_id = ? AND iteration = ?", elapsed)

    curves = compared(mlxops, "heron,otter --by time")["curves"]

    assert curves[0]["train_loss"] == [[60.0, 3.0], [80.0, 2.0]]


def test_by_time_the_points_of_a_run_at_work_go_beyond_its_last_heartbeat(mlxops: Typed, db: Registry) -> None:
    run = new_run(db, "heron")
    report(db, run, begin(db, run), LINE)
    train(db, "otter", LINE)
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET created_at = '2026-11-22T00:00:00.000Z' WHERE id = ?", (run.id,))
        connection.execute(
            "UPDATE attempts SET started_at = ?, heartbeat_at = ? WHERE run_id = ?",
            ("2026-11-22T00:00:10.000Z", "2026-11-22T00:00:20.000Z", run.id),
        )
        connection.execute("UPDATE metrics SET elapsed_ms = 1000 * iteration WHERE run_id = ?", (run.id,))

    curves = compared(mlxops, "heron,otter --by time")["curves"]

    assert curves[0]["train_loss"] == [[0.0, 4.0], [10.0, 3.0], [20.0, 2.0]]


def test_by_time_an_imported_run_stands_where_its_log_says(mlxops: Typed, db: Registry) -> None:
    run = train(db, "heron", LINE)
    train(db, "otter", LINE)
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET imported_from = 'training.log' WHERE id = ?", (run.id,))
        connection.execute("UPDATE metrics SET elapsed_ms = 1000 * iteration WHERE run_id = ?", (run.id,))

    curves = compared(mlxops, "heron,otter --by time")["curves"]

    assert curves[0]["train_loss"] == [[10.0, 4.0], [20.0, 3.0], [30.0, 2.0]]


def test_by_time_a_run_that_began_with_trained_weights_is_pointed_out(mlxops: Typed, db: Registry) -> None:
    about = {"kind": "branch", "folder": "adapters/wren", "file": "x", "adapter_sha256": "x", "run": "wren"}
    train(db, "heron", LINE)
    train(db, "otter", LINE, config={"origin": {**about, "iteration": 5}})

    assert compared(mlxops, "heron,otter")["cautions"] == []
    (caution,) = compared(mlxops, "heron,otter --by time")["cautions"]
    assert caution.startswith("not all begin with the same weights: ")


def test_final_and_best_losses_come_with_their_errors_and_a_verdict(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, [(10, 2.0, 0.03), (30, 2.3, 0.04)])
    train(db, "otter", LINE, [(10, 2.05, 0.03), (30, 2.01, 0.03)])

    found = compared(mlxops, "heron,otter")
    drawn = mlxops("run.compare heron,otter")[1]

    assert [row["exceeds"] for row in found["differences"]] == [True, False, False, False]
    assert found["differences"][0]["difference"] == pytest.approx(0.29)
    assert found["differences"][0]["standard_error"] == pytest.approx(0.05)
    assert found["runs"][0]["best_standard_error"] == 0.03
    assert [line.split() for line in drawn.splitlines() if line.startswith(("A    ", "B    "))][:2] == [
        ["A", "2.000", "2.300", "±", "0.040", "0.290", "±", "0.050", "*", "2.000", "±", "0.030", "10", "lowest"],
        ["B", "2.000", "2.010", "±", "0.030", "lowest", "2.010", "±", "0.030", "30", "0.010", "±", "0.042"],
    ]
    assert "* more than chance" in drawn


@pytest.mark.parametrize(
    ("measured", "exceeds"),
    [
        ([(2.0, 0.03), (2.0979, 0.04)], [False, False]),
        ([(2.0, 0.03), (2.0981, 0.04)], [False, True]),
        ([(2.0, None), (3.0, 0.04)], [None, None]),
        ([(None, None), (3.0, 0.04)], [None, False]),
        ([(None, None), (None, None)], [None, None]),
    ],
)
def test_a_difference_is_real_beyond_1_96_of_its_standard_errors(
    measured: list[tuple[float | None, float | None]], exceeds: list[bool | None]
) -> None:
    assert [each.exceeds for each in above_lowest(measured)] == exceeds


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_identity": "x"}, "the models differ"),
        ({"config": {"validation_identity": "x"}}, "the validation rows differ"),
        ({"config": {"seed": 1}}, "unless all rows fit"),
        ({"config": {"mask_prompt": False}}, "other tokens count"),
    ],
)
def test_losses_that_do_not_measure_the_same_are_pointed_out(
    mlxops: Typed, db: Registry, changed: dict[str, Any], said: str
) -> None:
    train(db, "heron", LINE)
    train(db, "otter", LINE, **changed)

    (caution,) = compared(mlxops, "heron,otter")["cautions"]

    assert said in caution


def test_the_speed_of_each_attempt_is_a_median_of_its_own_reports(mlxops: Typed, db: Registry) -> None:
    run = new_run(db, "heron")
    first = begin(db, run)
    for iteration, speed in ((10, 100.0), (20, 110.0), (30, 500.0)):
        report(db, run, first, [(iteration, 3.0)], speed=speed)
    second = begin(db, run, from_iteration=30)
    report(db, run, second, [(40, 2.0)], speed=900.0)
    train(db, "otter")

    found = compared(mlxops, "heron,otter")

    assert [row["attempts"] for row in found["speed"]] == [
        [
            {"attempt": 1, "tokens_per_second": 110.0, "reports": 3},
            {"attempt": 2, "tokens_per_second": 900.0, "reports": 1},
        ],
        [],
    ]
    assert [row["peak_memory"] for row in found["memory"]] == [1e9, None]


def test_a_report_without_a_batch_says_nothing_of_the_speed(mlxops: Typed, db: Registry) -> None:
    run = new_run(db, "heron")
    attempt = begin(db, run)
    for iteration, speed in ((10, 100.0), (20, 0.0), (30, 0.0)):
        report(db, run, attempt, [(iteration, 3.0)], speed=speed)
    train(db, "otter")

    (row,) = compared(mlxops, "heron,otter")["speed"][0]["attempts"]

    assert (row["tokens_per_second"], row["reports"]) == (100.0, 1)


def test_newest_scores_on_the_same_data_stand_side_by_side(mlxops: Typed, db: Registry) -> None:
    values = {"heron": [9.0, 4.0], "otter": [5.0]}
    for name, scores in values.items():
        run = train(db, name)
        for value in scores:
            evaluation = registry.record_evaluation(
                db,
                run_id=run.id,
                model="m",
                adapter_path=None,
                data="data/test.jsonl",
                data_sha256="x",
                kind="test",
                config={},
            )
            with db.transaction() as connection:
                connection.execute("INSERT INTO scores VALUES (?, 'perplexity', ?, 0.1)", (evaluation, value))

    (row,) = compared(mlxops, "heron,otter")["evaluations"]

    assert (row["metric"], row["values"], row["standard_errors"]) == ("perplexity", [4.0, 5.0], [0.1, 0.1])
    assert "perplexity  4.000 ± 0.100  5.000 ± 0.100" in mlxops("run.compare heron,otter")[1]


def test_the_newest_benchmarks_of_the_same_request_stand_side_by_side(mlxops: Typed, db: Registry) -> None:
    for name, speeds in (("heron", [(50.0, 9.0), (60.0, 10.0)]), ("otter", [(70.0, 20.0)])):
        run = train(db, name)
        for host, (read, made) in zip(("here", "here"), speeds, strict=False):
            benchmark(db, run.id, host, read, made)
    benchmark(db, run.id, "elsewhere", 500.0, 100.0)

    rows = compared(mlxops, "heron,otter")["benchmarks"]

    assert [(row["host"], row["metric"].partition("_")[0], row["values"]) for row in rows] == [
        ("elsewhere", "prompt", [None, 500.0]),
        ("elsewhere", "generation", [None, 100.0]),
        ("here", "prompt", [60.0, 70.0]),
        ("here", "generation", [10.0, 20.0]),
    ]
    assert rows[2]["standard_deviations"] == [0.0, 0.0]
    lines = [line.rstrip() for line in mlxops("run.compare heron,otter")[1].splitlines()]
    assert "benchmarks: 8 prompt tokens, 4 made (cpu: some)" in lines
    assert {"A    60.000 ± 0.000  10.000 ± 0.000", "B    70.000 ± 0.000  20.000 ± 0.000"} <= set(lines)


def benchmark(db: Registry, run_id: int, host: str, read: float, made: float) -> None:
    """A benchmark of two equal trials."""
    recorded = registry.record_benchmark(
        db, run_id=run_id, model="m", adapter_path=None, config={}, load_seconds=1, host=host, device="cpu: some",
        environment={},
    )  # fmt: skip
    for number in (1, 2):
        trial = registry.Trial(
            prompt_tokens=8, context_tokens=0, batch_size=1, generated_tokens=4, time_to_first_token=0.1,
            prompt_tokens_per_second=read, generation_tokens_per_second=made, token_latencies=[0.1], peak_memory=1,
            active_memory=1, seconds=1,
        )  # fmt: skip
        registry.add_trial(db, recorded, number, trial)


@pytest.mark.slow
def test_a_long_curve_keeps_its_spike(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", [(step, 99.0 if step == 1234 else 2.0) for step in range(1, 3000)])
    train(db, "otter", LINE)

    curve = compared(mlxops, "heron,otter")["curves"][0]["train_loss"]

    assert len(curve) <= 400
    assert [1234.0, 99.0] in curve


HOW_MANY = "hint: `mlx-toolkit run.compare 1,2`; `mlx-toolkit runs` shows the numbers\n"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            "heron",
            f"run.compare takes 2 to 8 runs, not 1\n{HOW_MANY}",
        ),
        (
            "a,b,c,d,e,f,g,h,i",
            f"run.compare takes 2 to 8 runs, not 9\n{HOW_MANY}",
        ),
        ("heron,heron", "the run 'heron' stands there twice\nhint: name each run once\n"),
        (
            "heron,latest",
            "heron and latest are not different runs\nhint: `mlx-toolkit runs` shows the runs there are\n",
        ),
        ("heron,herom", "no run 'herom'\nhint: did you mean 'heron'?\n"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_hint(mlxops: Typed, db: Registry, names: str, said: str) -> None:
    train(db, "heron", LINE)

    assert mlxops(f"run.compare {names}") == (2, "", said)


# between points ------------------------------------------------------------------------------------------------------


def test_nothing_is_made_up_beside_a_loss_that_was_not_finite_or_outside_the_curve() -> None:
    curve = [(0.0, 4.0), (10.0, None), (20.0, 2.0), (30.0, 1.0)]

    assert [value_at(curve, place) for place in (-1, 0, 5, 10, 15, 20, 25, 31)] == [
        *(None, 4.0, None, None, None, 2.0, 1.5, None)
    ]


def test_curves_that_share_nothing_have_no_common_places() -> None:
    assert common_places([[(0, 1.0), (5, 1.0)], [(6, 1.0), (9, 1.0)]], 8, whole=True) == []
    assert common_places([[(0, 1.0)], []], 8, whole=True) == [0]
    assert common_places([[], []], 8, whole=True) == []
    assert common_places([[(0, 1.0), (5, 1.0)], [(5, 1.0), (9, 1.0)]], 8, whole=True) == [5]
    assert common_places([[(0.5, 1.0), (2.5, 1.0)]], 3, whole=False) == [0.5, 1.5, 2.5]
