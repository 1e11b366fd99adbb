"""What is said of a training that was stopped, started in the background, or verified."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from mlxops.jobs.train.stop import StoppedRun
from mlxops.jobs.train.verify_resume import ComparedArrays, ComparedValues, Verdict
from mlxops.ui.terminal import console
from mlxops.ui.train import outcome

ENDED = StoppedRun(
    run="heron",
    state="killed",
    status="interrupted",
    pid=4711,
    iteration=1234,
    target_iterations=5000,
    goes_on_from=1200,
    error=None,
    command="inv lora --name heron",
    last_seen="2026-01-02T03:04:05.000Z",
    host="ibis",
)
PARTS = [
    ComparedValues(part="counters", equal=True, compared=3, differing=[]),
    ComparedArrays(
        part="accumulated gradients",
        equal=True,
        compared=0,
        differing=[],
        largest_absolute_difference=None,
        largest_relative_difference=None,
    ),
    ComparedArrays(
        part="adapter",
        equal=False,
        compared=5,
        differing=["a", "b", "c", "d"],
        largest_absolute_difference=0.5,
        largest_relative_difference=0.25,
    ),
    ComparedValues(part="metrics", equal=False, compared=2, differing=["train_loss at 11"]),
]
VERDICT = Verdict(
    equal=False,
    iterations=20,
    interrupted_after=10,
    device="gpu",
    repeats_without_a_stop=False,
    parts=PARTS,
    seconds=61.0,
)


def said(draw: Any, value: StoppedRun | Verdict, **options: Any) -> str:
    """What a drawing prints where there is no terminal."""
    stream = io.StringIO()
    draw(value, console.make(file=stream, width=80), as_json=options.get("as_json", False))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        (
            {},
            [
                "heron: killed; the last it told was iteration 1,234 of 5,000",
                "resumes from  iteration 1,200",
                "with          inv lora --name heron",
            ],
        ),
        ({"state": "finished", "goes_on_from": None}, ["heron: finished at iteration 1,234 of 5,000"]),
        (
            {"state": "ended", "error": "the disk is full", "command": None},
            [
                "heron: ended with an error at iteration 1,234 of 5,000",
                "error         the disk is full",
                "resumes from  iteration 1,200",
            ],
        ),
        (
            {"state": "lost", "command": None},
            [
                "heron: its process was lost at iteration 1,234 of 5,000",
                "last seen     2026-01-02T03:04:05.000Z on ibis",
                "resumes from  iteration 1,200",
            ],
        ),
        (
            {"state": "idle", "goes_on_from": None},
            ["heron: not at work (interrupted at iteration 1,234 of 5,000)"],
        ),
    ],
)
def test_how_a_training_ended_is_said_with_where_it_goes_on(changed: dict[str, Any], lines: list[str]) -> None:
    assert said(outcome.stopped, replace(ENDED, **changed)).splitlines() == lines


def test_a_verdict_says_of_each_part_how_far_it_is_apart() -> None:
    assert said(outcome.verified, VERDICT).splitlines() == [
        "A training of 20 iterations, killed after 10 and resumed, differs from one without a stop",
        "counters               equal (3 compared)",
        "accumulated gradients  equal (there are none)",
        "adapter                differs by up to 0.500, relative 0.250: a, b, c …",
        "metrics                differs: train_loss at 11",
        "1 m 01 s on the gpu; the verdict waits for the first run of these settings",
    ]


@pytest.mark.parametrize(("draw", "value"), [(outcome.stopped, ENDED), (outcome.verified, VERDICT)])
def test_as_json_all_of_it_is_there(draw: Any, value: StoppedRun | Verdict) -> None:
    assert json.loads(said(draw, value, as_json=True)) == asdict(value)
