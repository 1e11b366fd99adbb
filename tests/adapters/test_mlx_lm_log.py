"""Lines of mlx_lm.lora: what every version printed, and what is passed over."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mlxops.adapters import mlx_lm_log
from mlxops.adapters.mlx_lm_log import Begins, Point, Reached

OLDEST = "Iter 10: Train loss 2.254, It/sec 0.477, Tokens/sec 191.716"
WITHOUT_MEMORY = (
    "Iter 10: Train loss 2.363, Learning Rate 1.000e-05, It/sec 1.022, Tokens/sec 88.083, Trained Tokens 862"
)
WHOLE = WITHOUT_MEMORY + ", Peak mem 26.190 GB"


def points(path: Path) -> list[tuple[int, dict[str, float]]]:
    return [(said.iteration, said.metrics) for _, said in mlx_lm_log.read(path) if isinstance(said, Point)]


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        (OLDEST, {"train_loss": 2.254, "iterations_per_second": 0.477, "tokens_per_second": 191.716}),
        (
            WHOLE,
            {
                "train_loss": 2.363,
                "learning_rate": 1e-5,
                "iterations_per_second": 1.022,
                "tokens_per_second": 88.083,
                "trained_tokens": 862,
                "peak_memory": 26_190_000_000,
            },
        ),
        ("  1010    4.056 ▼    12,345    1234.5k", {
            "train_loss": 4.056, "tokens_per_second": 12_345, "trained_tokens": 1_234_500}),
        ("    10    0.056 ??    45      0.5k", {
            "train_loss": 0.056, "tokens_per_second": 45, "trained_tokens": 500}),
    ],
)  # fmt: skip
def test_a_report_has_the_names_and_units_of_the_registry(line: str, metrics: dict[str, float]) -> None:
    said = mlx_lm_log.parse(line)

    assert isinstance(said, Point)
    assert said.metrics == metrics


def test_versions_without_the_memory_say_all_else() -> None:
    said, whole = mlx_lm_log.parse(WITHOUT_MEMORY), mlx_lm_log.parse(WHOLE)

    assert isinstance(said, Point)
    assert isinstance(whole, Point)
    assert whole.metrics.keys() - said.metrics.keys() == {"peak_memory"}


@pytest.mark.parametrize(
    "line",
    [
        "Iter 200: Val loss 2.900, Val took 1.250s",
        " 200    val 2.900    1.25s",
        "2024-03-12 10:00:00,123 INFO Iter 200: Val loss 2.900, Val took 1.25s",
    ],
)
def test_a_validation_is_one_in_every_spelling(line: str) -> None:
    assert mlx_lm_log.parse(line) == Point(iteration=200, metrics={"validation_loss": 2.9}, seconds=1.25)


@pytest.mark.parametrize("line", ["Iter 5: Train loss nan, It/sec 1.0", "     5      nan ▲      100      0.1k"])
def test_a_loss_that_is_not_finite_is_read(line: str) -> None:
    said = mlx_lm_log.parse(line)

    assert isinstance(said, Point)
    assert math.isnan(said.metrics["train_loss"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Starting training..., iters: 300", Begins(target=300)),
        ("  iter   train_loss     tok/s     tokens", Begins()),
        ("│    batch · iters   4 · 1,000     │", Begins(target=1000, settings={"batch_size": 4})),
        ("│    model           models/a b    │", Begins(settings={"model": "models/a b"})),
        (
            "│    optimizer       adamw · lr 1.0e-05    │",
            Begins(settings={"optimizer": "adamw", "learning_rate": 1e-5}),
        ),
        ("Loading fine-tuned weights from old/adapters.safetensors", Begins(adapter="old/adapters.safetensors")),
        ("Iter 100: Saved adapter weights to checkpoints/100_adapters.npz.", Reached(iteration=100)),
        ("  save  0000100_adapters.safetensors", Reached(iteration=100)),
        ("train ██████████░░░░░░░░  52% ·    13/25", Reached(iteration=13, target=25)),
        ("Saved final weights to adapters/adapters.safetensors.", Reached(is_end=True)),
        ("Saved final adapter weights to adapters/adapters.safetensors.", Reached(is_end=True)),
    ],
)
def test_beginnings_savings_and_ends_are_told(line: str, said: object) -> None:
    assert mlx_lm_log.parse(line) == said


@pytest.mark.parametrize(
    "line",
    [
        "",
        "iteration 10/12  loss 5.929  tokens/s 5293  learning rate 1e-05",
        "step 100: train loss 2.5571, val loss 2.5548",
        "Epoch 1: Train loss 2.3, Val loss 2.2",
        "Iter 10: Train loss 2.3Loading datasets",
        "Calculating loss...: 15it [01:00,  4.01s/it]",
        "val   ██████████████████████████████ 100% ·    4/4",
        " 10    1.5    20    3k",
        "Test loss 2.345, Test ppl 10.432.",
    ],
)
def test_what_is_no_line_of_mlx_lm_is_passed_over(line: str) -> None:
    assert mlx_lm_log.parse(line) is None


def test_colours_redrawn_bars_and_broken_letters_hide_no_line(tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    log.write_bytes(
        b"\xff\xfe noise\r\n"
        b"\x1b[1;34mtrain\x1b[0m  0%\r\x1b[2K\x1b[1A\x1b[2K  \x1b[38;5;244m   1\x1b[0m    \x1b[1;35mval\x1b[0m "
        b"\x1b[1m5.964\x1b[0m    \x1b[38;5;244m0.06s\x1b[0m\r\n"
        b"Calculating loss...:  50%\rIter 10: Train loss 2.500, It/sec 1.0\r\n"
        b"another program\x00 says \xe2\x96 this\n"
    )

    assert points(log) == [
        (1, {"validation_loss": 5.964}),
        (10, {"train_loss": 2.5, "iterations_per_second": 1.0}),
    ]


@pytest.mark.parametrize("line", ["1  " + "1" * 16_000, "train " + "1%" * 8_000, "│ model  x" + " " * 16_000])
def test_the_work_on_a_line_does_not_grow_with_its_square(line: str, tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    log.write_text(f"{line}\n" * 200 + f"{OLDEST}\n")

    assert [iteration for iteration, _ in points(log)] == [10]


def test_what_cannot_be_believed_is_left_out_of_a_point() -> None:
    said = mlx_lm_log.parse(
        "Iter 1: Train loss 2.0, It/sec -1.0, Tokens/sec 1e300, Trained Tokens nan, Peak mem 1e300 GB"
    )

    assert isinstance(said, Point)
    assert said.metrics.keys() == {"train_loss", "peak_memory"}
    assert math.isnan(said.metrics["peak_memory"])


def test_a_last_line_without_an_end_counts_only_where_nothing_can_be_missing(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut.log", tmp_path / "whole.log"
    cut.write_text(f"{WHOLE}\n{OLDEST[:-2]}")
    whole.write_text(f"{OLDEST}\n{WHOLE}")

    assert len(points(cut)) == 1
    assert len(points(whole)) == 2


@pytest.mark.slow
def test_lines_across_pieces_of_a_large_file_and_endless_ones_are_read_right(tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    noise = b"#" * (3 << 20)
    lines = b"".join(b"Iter %d: Train loss 1.5, It/sec 2.0\n" % iteration for iteration in range(1, 60_001))
    log.write_bytes(lines[: len(lines) // 2] + b"\n" + noise + b"\n" + lines[len(lines) // 2 :])
    heard: list[int] = []

    found = [said for _, said in mlx_lm_log.read(log, heard.append)]

    # the line that the noise was put into is lost, and no other
    assert 59_999 <= len(found) <= 60_000
    assert heard == sorted(heard)
    assert heard[-1] == log.stat().st_size
