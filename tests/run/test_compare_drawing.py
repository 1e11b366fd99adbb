"""A comparison of runs as it is drawn: eighty columns, many runs, and curves in one frame."""

from __future__ import annotations

from collections.abc import Callable

from known_runs import LINE, new_run, train

from mlxops import registry
from mlxops.registry import Registry

Typed = Callable[[str], tuple[int, str, str]]


def test_no_figure_of_a_long_run_is_cut_at_eighty_columns(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, [(10_000, 5.951, 9.21e-5)])
    train(db, "otter", LINE, [(12_000, 5.9512, 8.7654e-5), (12_001, 5.99, 0.00012)])

    lines = [line.rstrip() for line in mlxops("run.compare heron,otter")[1].splitlines()]

    assert "A    2.000  5.951 ± 9e-05  lowest" in lines
    assert "B    5.951 ± 9e-05  12,000  0.0002 ± 1e-04" in lines
    assert [line for line in lines if "…" in line or len(line) > 80] == []


def test_scores_of_more_runs_than_fit_stand_below_each_other(mlxops: Typed, db: Registry) -> None:
    for number in range(6):
        run = train(db, f"run-{number}")
        evaluation = registry.record_evaluation(
            db, run_id=run.id, model="m", adapter_path=None, data="data/test.jsonl", data_sha256="x", kind="test",
            config={},
        )  # fmt: skip
        with db.transaction() as connection:
            connection.execute("INSERT INTO scores VALUES (?, 'perplexity', ?, 0.1)", (evaluation, 4.0 + number))

    drawn = mlxops("run.compare run-0,run-1,run-2,run-3,run-4,run-5")[1]

    assert "perplexity (test of data/test.jsonl)\nA  4.000 ± 0.100\nB  5.000 ± 0.100\n" in drawn


def test_few_settings_of_many_runs_are_columns(mlxops: Typed, db: Registry) -> None:
    for number in range(8):
        train(
            db,
            f"run-{number}",
            LINE,
            config={"optimizer": "adafactor-with-a-name" if number else "adam", "seed": number},
        )

    lines = [
        line.rstrip()
        for line in mlxops(f"run.compare {','.join(f'run-{number}' for number in range(8))}")[1].splitlines()
    ]

    assert "run  optimizer*             seed*" in lines
    assert "B    adafactor-with-a-name  1" in lines


def test_both_curves_are_drawn_in_one_frame_with_their_letters(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", [(step, 4 - step / 50) for step in range(1, 100)])
    train(db, "otter", [(step, 3 - step / 50) for step in range(1, 100)])

    drawn = mlxops("run.compare heron,otter")[1]
    frame = drawn[drawn.index("┌") : drawn.index("└")]

    assert {"A", "B"} <= set(frame)
    assert max(map(len, drawn.splitlines())) <= 80


def test_eight_runs_fit_eighty_columns_and_runs_without_a_loss_are_compared(mlxops: Typed, db: Registry) -> None:
    for number in range(7):
        keys = [f"self_attn.{each}_proj" for each in "qkvo"] * (number % 2)
        config = {"seed": number, "lora_keys": keys}
        train(db, f"a-run-with-a-long-name-{number}", LINE, [(30, 2.0 + number, 0.1)], config=config)
    new_run(db, "wren")
    names = ",".join(row["name"] for row in registry.list_runs(db))

    code, drawn, _ = mlxops(f"run.compare {names}")

    assert code == 0
    assert "seed* 0 (A, H), 6 (B), 5 (C), 4 (D), 3 (E), 2 (F), 1 (G)\n" in drawn
    assert "mlx" not in drawn
    whole = [line for line in drawn.splitlines() if not line.startswith(("take care", "lora_keys"))]
    assert max(len(line.rstrip()) for line in whole) <= 80
