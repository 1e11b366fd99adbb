"""What is said of a training that is over, was stopped, or verified, and what it changed."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
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


ANSWERED = """
    SELECT runs.name, evaluations.kind, answers.prompt, answers.expected, answers.answer
    FROM evaluations
    JOIN answers ON answers.evaluation_id = evaluations.id
    LEFT JOIN runs ON runs.id = evaluations.run_id
    ORDER BY evaluations.id, answers.row
"""


@pytest.fixture
def answering(tuned_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of the tuned run, where trainings answer as many prompts as they do for a person."""
    monkeypatch.delenv("INVOKE_RUNTIME_CONFIG")
    return tuned_project


def stored_answers(project: Path) -> list[tuple[str | None, ...]]:
    """Run, kind, prompt, expected and answer of all answers in the registry."""
    with closing(sqlite3.connect(project / "runs.db")) as db, db:
        return db.execute(ANSWERED).fetchall()


@pytest.mark.slow
def test_a_training_shows_what_it_changed_and_asks_once(mlxops, answering: Path) -> None:
    command = "lora --model tiny --num-layers 2 --learning-rate 0.02 --name tuned --iters 10"

    code, out, _ = mlxops(f"{command} --json")
    said = json.loads(out)
    again = json.loads(mlxops(f"{command} --json")[1])
    shown = mlxops(command)[1]

    assert (code, said["name"], said["iteration"], said["notes"]) == (0, "tuned", 10, [])
    assert (said["before"]["iteration"], said["after"]["iteration"]) == (0, 10)
    prompts = [("What is 0?", "It is 0."), ("What is 1?", "It is 1.")]
    assert [(each["prompt"], each["expected"], each["data"]) for each in said["answers"]] == [
        (*each, "data/valid.jsonl") for each in prompts
    ]
    of_base = [(None, "answers", *each, said["answers"][row]["base_answer"]) for row, each in enumerate(prompts)]
    of_tuned = [("tuned", "answers", *each, said["answers"][row]["answer"]) for row, each in enumerate(prompts)]
    assert stored_answers(answering) == [*of_base, *of_tuned]
    assert {**again, "was_finished": False} == said
    assert "What is 1?\nbase model " in shown
    assert shown.endswith(
        "Next\n  mlx-toolkit chat --run tuned\n  mlx-toolkit test --run tuned --compare-base\n"
        "  mlx-toolkit model.fuse tuned\n"
    )
    assert all(mlxops(f"{each.split()[1]} --help")[0] == 0 for each in said["commands"])


@pytest.mark.slow
def test_the_answers_are_those_of_a_test_and_change_no_bit_of_the_training(mlxops, answering: Path) -> None:
    for count in (0, 3):
        assert mlxops(f"finetune tiny --epochs 1 --num-layers 2 --samples {count} --new --name with-{count}")[0] == 0
    adapters = [(answering / "adapters" / f"with-{count}" / "adapters.safetensors").read_bytes() for count in (0, 3)]
    mlxops("test --run with-3 --metrics generation_quality --max-tokens 80 --num-samples 3 --compare-base")

    assert adapters[0] == adapters[1]
    made, tested = (
        {(run, prompt): answer for run, each, prompt, _, answer in stored_answers(answering) if each == kind}
        for kind in ("answers", "test")
    )
    both = made.keys() & tested.keys()
    assert (len(made), len(both) >= 4) == (6, True)
    assert {key: made[key] for key in both} == {key: tested[key] for key in both}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "no answers: interrupted; `mlx-toolkit chat --run tuned` asks\n\nNext\n"),
        (RuntimeError("[METAL] no memory"), "no answers: RuntimeError: [METAL] no memory; `mlx-toolkit chat --run"),
    ],
)
def test_what_goes_wrong_while_answering_costs_the_answers_alone(
    mlxops, answering: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("mlxops.models.generation.generate_batch", fail)

    code, out, err = mlxops("lora --model tiny --num-layers 2 --learning-rate 0.02 --name tuned --iters 9")

    assert (code, said in out) == (0, True), out + err
    assert out.startswith("tuned: finished at iteration 9 of 9\nvalidation loss ")
    assert stored_answers(answering) == []
    with closing(sqlite3.connect(answering / "runs.db")) as db, db:
        assert db.execute("SELECT status FROM runs").fetchall() == [("completed",)]


@pytest.mark.slow
def test_rows_that_ask_nothing_are_continued_and_training_rows_are_said(mlxops, answering: Path) -> None:
    text = "One and one is two, two and two is four, four and four is eight, and so on and on."
    (answering / "texts.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (answering / "short.jsonl").write_text(json.dumps({"text": "short"}) + "\n")

    said = json.loads(mlxops("lora tiny texts.jsonl --iters 1 --num-layers 1 --name texts --json")[1])
    short = json.loads(mlxops("lora tiny short.jsonl --iters 1 --num-layers 1 --name short --json")[1])

    (answer,) = said["answers"]
    assert answer["prompt"] + answer["expected"] == text
    assert said["notes"] == ["the prompts are training rows: there are no validation rows"]
    assert (said["before"], said["after"], short["answers"]) == (None, None, [])
    assert short["notes"] == [
        "no answers: no row asks anything within 1,024 tokens; `mlx-toolkit chat --run short` asks"
    ]


@pytest.mark.slow
def test_a_loss_on_other_rows_is_not_set_beside_that_of_the_base_model(mlxops, answering: Path) -> None:
    command = "lora --model tiny --num-layers 2 --learning-rate 0.02 --name tuned --samples 0 --val-batches 1 --json"

    said = json.loads(mlxops(f"{command} --iters 9")[1])

    assert (said["before"], said["after"]["iteration"], said["answers"]) == (None, 9, [])
