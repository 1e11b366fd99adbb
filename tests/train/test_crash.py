"""The short form of `benchmarks/crash.py`: training that is killed and started again ends as if nothing had been."""

import json
import random
import shlex
import sys
from pathlib import Path

import pytest
import training_runs
from commands import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import crash

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", crash.cases()[::2], ids=lambda case: case.name)
def test_a_killed_training_ends_with_the_bytes_and_figures_of_an_uninterrupted_one(
    case: crash.Case, tmp_path: Path, tiny_model: Path
) -> None:
    project = training_runs.make_project(tmp_path / "trained", tiny_model)
    crash.add_split_conversations(project, project / "models" / "tiny")
    options = ["--model", "tiny", *crash.COMMON, "--learning-rate", "3e-3"]

    count = crash.check(project, case, 2, random.Random(case.name), options)

    assert count.faults == []
    assert (count.kills, count.exact) == (2, count.runs)
    assert count.in_writer >= 1
    assert count.is_good


def test_every_optimizer_meets_every_feature() -> None:
    met = {(case.optimizer, feature) for case in crash.cases() for feature in case.features}

    assert met == {(optimizer, feature) for optimizer in crash.OPTIMIZERS for feature in crash.FEATURES}


def test_every_conversation_of_the_split_case_is_two_rows(
    tmp_path: Path, tiny_model: Path, monkeypatch, mlxops
) -> None:
    project = training_runs.make_project(tmp_path / "trained", tiny_model)
    crash.add_split_conversations(project, project / "models" / "tiny")
    monkeypatch.chdir(project)
    words = crash.Case("adam", ("split",)).typed(["--model", "tiny", *crash.COMMON])

    code, out, err = mlxops(shlex.join(["lora", *words, "--preview", "--json"]))

    assert code == 0, err
    said = json.loads(out)
    assert said["rows"] == 24
    assert [len(row["trained"]) for row in said["examples"]] == [1, 1, 1]
    assert any(note.startswith("12 of 12 conversations became 24 rows") for note in said["notes"])
