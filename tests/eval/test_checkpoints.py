"""Testing every checkpoint of a run: each is measured and recorded as it would be alone, and the course is shown."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]

OPTIONS = "--data data/train.jsonl --num-samples 3 --max-tokens 6 --compare-base --json"


@pytest.mark.slow
def test_every_checkpoint_is_measured_and_recorded_as_it_is_alone(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops(f"test --run tuned --all-checkpoints {OPTIONS} --output all.json")
    alone = [json.loads(mlxops(f"test --run tuned:{iteration} {OPTIONS}")[1]) for iteration in (4, 8)]

    together = json.loads(out)
    assert (code, [each["iteration"] for each in together]) == (0, [4, 8]), err
    assert json.loads(Path("all.json").read_text()) == together
    for one, other in zip(together, alone, strict=True):
        assert one["scores"] == other["scores"]
        assert one["answers"] == other["answers"]
    # the base was measured and recorded once
    assert len({each["base_evaluation_id"] for each in together}) == 1
    sql = "select iteration, count(*) from evaluation_summary where metric = 'loss' and run = 'tuned' group by 1"
    assert registry.query(Path("runs.db"), sql).rows == [(4, 2), (8, 2)]


@pytest.mark.slow
def test_the_best_of_each_score_is_marked_and_the_curve_drawn(
    mlxops: Typed, tuned_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    _, out, _ = mlxops("test --run tuned --all-checkpoints --metrics perplexity")

    lines = out.splitlines()
    assert lines[0] == "models/tiny, 2 checkpoints on data/valid.jsonl"
    assert [line.split()[0] for line in lines[2:6] if not line.startswith("─")] == ["iteration", "4", "8"]
    assert [line.split()[0] for line in lines if line.endswith("*") or " * " in line] == ["8"]
    assert "perplexity by iteration" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_out_and_named(mlxops: Typed, tuned_project: Path) -> None:
    file = Path("adapters/tuned/0000004_adapters.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    code, out, err = mlxops("test --run tuned --all-checkpoints --metrics perplexity --json")

    assert (code, [each["iteration"] for each in json.loads(out)]) == (0, [8])
    assert "1 checkpoint left out, first that of iteration 4: " in err


def test_without_a_run_or_with_one_checkpoint_it_is_refused(mlxops: Typed, tuned_project: Path) -> None:
    said = {
        options: mlxops(f"test {options} --all-checkpoints --metrics perplexity")
        for options in ("tiny", "--run tuned:4", "--run nothing", "--adapter-path adapters/tuned")
    }

    assert {options: code for options, (code, _, _) in said.items()} == dict.fromkeys(said, 2)
    assert "names one checkpoint" in said["--run tuned:4"][2]


@pytest.mark.slow
def test_the_answers_to_a_row_are_told_one_after_the_other(mlxops: Typed, tuned_project: Path) -> None:
    mlxops(f"test --run tuned --all-checkpoints --metrics generation_quality {OPTIONS}")
    with closing(sqlite3.connect("runs.db")) as db, db:
        right = "UPDATE answers SET scores = json_set(scores, '$.exact_match', ?) WHERE row = 2 AND evaluation_id = ?"
        db.executemany(right, [(1.0, 2), (0.0, 3)])

    found = json.loads(mlxops("sql @row_history --param row=2 --format json")[1])

    assert [(each["iteration"], each["state"]) for each in found] == [(4, "became right"), (8, "forgotten")]
