"""Models on the same rows, side by side: each is tested as it would be alone, and compared with the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxops import registry

Typed = Callable[[str], tuple[int, str, str]]

OPTIONS = "--data data/train.jsonl --num-samples 4 --max-tokens 6 --json"


@pytest.mark.slow
def test_each_model_scores_what_it_scores_alone_and_is_recorded(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops(f"eval.compare tiny,tuned:4,tuned {OPTIONS}")
    alone = [json.loads(mlxops(f"test {name} {OPTIONS}")[1]) for name in ("tiny", "--run tuned:4", "--run tuned")]

    together = json.loads(out)
    assert (code, [each["name"] for each in together]) == (0, ["tiny", "tuned:4", "tuned"]), err
    assert [each["scores"] for each in together] == [each["scores"] for each in alone]
    assert [each["answers"] for each in together] == [each["answers"] for each in alone]
    assert together[0]["compared"] == {}
    # with the base as the first, the differences are those of --compare-base
    base = json.loads(mlxops(f"test --run tuned --compare-base {OPTIONS}")[1])
    assert together[2]["compared"] == base["compared"]
    ids = [each["evaluation_id"] for each in together]
    found = registry.query(Path("runs.db"), "select count(*) from evaluations where id in (1, 2, 3) and kind = 'test'")
    assert (ids, found.rows) == ([1, 2, 3], [(3,)])


@pytest.mark.slow
def test_runs_are_compared_on_the_data_of_the_first(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops("eval.compare tuned:8,tuned:4 --metrics perplexity")

    assert (code, out.splitlines()[0]) == (0, "4 rows of data/valid.jsonl"), err
    assert "tuned:4 against tuned:8" in out
    assert "recorded as evaluations 1, 2;" in out


def test_what_cannot_be_compared_is_a_sentence_before_a_model_is_loaded(mlxops: Typed, tuned_project: Path) -> None:
    said = {
        names: mlxops(f"eval.compare {names}")
        for names in (
            "tuned",
            "tuned,tuned",
            "tiny,tuend",
            "tiny,./models/tiny",
            "tuned,tuned:5",
            ",".join("abcdefghi"),
        )
    }

    assert {names: code for names, (code, _, _) in said.items()} == dict.fromkeys(said, 2)
    assert "takes 2 to 8 models, not 1" in said["tuned"][2]
    assert "'tuend'" in said["tiny,tuend"][2]
    assert "models alone know no data" in said["tiny,./models/tiny"][2]
    assert not any(out for _, out, _ in said.values())
