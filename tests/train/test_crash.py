"""The short form of `benchmarks/crash.py`: training that is killed and started again ends as if nothing had been."""

import random
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
    options = ["--model", "tiny", *crash.COMMON, "--learning-rate", "3e-3"]

    count = crash.check(project, case, 3, random.Random(case.name), options)

    assert count.faults == []
    assert (count.kills, count.exact) == (3, count.runs)
    assert count.in_writer >= 2
    assert count.is_good


def test_every_optimizer_meets_every_feature() -> None:
    met = {(case.optimizer, feature) for case in crash.cases() for feature in case.features}

    assert met == {(optimizer, feature) for optimizer in crash.OPTIMIZERS for feature in crash.FEATURES}
