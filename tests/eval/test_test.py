"""Testing a model: its perplexity is what training measures, beside the base, recorded and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlxops import registry
from mlxops.config import TestConfig
from mlxops.evaluation.comparison import compare
from mlxops.jobs.eval import results as found
from mlxops.jobs.eval import test as job
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tested(mlxops: Typed, tuned_project: Path) -> Callable[[str], dict[str, Any]]:
    """The results of `mlx-toolkit test` in the tuned project."""

    def run(options: str) -> dict[str, Any]:
        code, out, err = mlxops(f"test {options} --metrics perplexity --json")
        assert code == 0, err
        return dict(json.loads(out))

    return run


Tested = Callable[[str], dict[str, Any]]


def rows(*numbers: int) -> str:
    return "".join(json.dumps({"prompt": f"What is {n}?", "completion": f"It is {n}."}) + "\n" for n in numbers)


@pytest.mark.slow
def test_the_loss_is_the_validation_loss_of_training_on_the_same_rows(tested: Tested, tuned_project: Path) -> None:
    scores = tested("--run tuned --compare-base")["scores"]

    with registry.open_read_only(tuned_project / "runs.db") as db:
        curve = registry.loss_curve(db, 1, buckets=100)
    validated = {row["iteration"]: row["validation_loss"] for row in curve}
    assert scores["loss"]["value"] == pytest.approx(validated[8], rel=1e-6)
    assert scores["loss"]["base_value"] == pytest.approx(validated[0], rel=1e-6)
    assert scores["loss"]["value"] < scores["loss"]["base_value"] - 0.01
    ((_, error),) = registry.query(
        tuned_project / "runs.db",
        "select iteration, validation_standard_error from loss_curve where iteration = 8",
    ).rows
    assert scores["loss"]["standard_error"] == pytest.approx(error, rel=1e-5)


@pytest.mark.slow
def test_the_batch_size_changes_nothing(tested: Tested) -> None:
    alone, together = (tested(f"--run tuned --batch-size {size} --data data/train.jsonl") for size in (1, 7))

    assert alone["rows"] == together["rows"]
    for name, score in alone["scores"].items():
        assert together["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-6)
        assert together["scores"][name]["standard_error"] == pytest.approx(score["standard_error"], rel=1e-5)


@pytest.mark.slow
def test_an_adapters_folder_is_tested_as_its_run(tested: Tested) -> None:
    assert tested("--adapter-path adapters/tuned")["scores"] == tested("--run tuned")["scores"]


@pytest.mark.slow
def test_results_are_recorded_with_the_base_beside_them(tested: Tested, tuned_project: Path) -> None:
    found = tested("--run tuned:4 --compare-base")

    sql = "select run, iteration, kind, rows, metric, value, base_value from evaluation_summary where id = :id"
    recorded = registry.query(tuned_project / "runs.db", sql, {"id": found["evaluation_id"]}).rows
    assert [tuple(row[:5]) for row in recorded] == [
        ("tuned", 4, "test", 4, metric) for metric in ("bits_per_byte", "loss", "perplexity", "perplexity_all")
    ]
    assert {row[4]: (row[5], row[6]) for row in recorded} == {
        name: (score["value"], score["base_value"]) for name, score in found["scores"].items()
    }


def test_the_output_file_holds_what_json_prints(mlxops: Typed, tuned_project: Path) -> None:
    code, out, _ = mlxops("test --run tuned --metrics perplexity --output results/new.json --json")

    assert code == 0
    assert json.loads((tuned_project / "results" / "new.json").read_text()) == json.loads(out)


def test_worst_rows_are_named_by_file_and_line(tested: Tested, tuned_project: Path) -> None:
    (tuned_project / "other.jsonl").write_text(
        rows(1, 2) + json.dumps({"prompt": "What is 3?", "completion": "zqx vvk wjj"}) + "\n"
    )

    found = tested("--run tuned --data other.jsonl")

    assert found["rows"] == 3
    assert found["worst_rows"][0]["row"] == "other.jsonl:3"


@pytest.mark.slow
def test_a_file_is_tested_whole_and_a_trained_one_only_where_rows_were_kept_back(
    mlxops: Typed, tuned_project: Path
) -> None:
    Path("all.jsonl").write_text(rows(*range(40)))
    assert mlxops("lora tiny all.jsonl --iters 1 --num-layers 1 --name whole")[0] == 0

    with_run = json.loads(mlxops("test --run whole --json --metrics perplexity")[1])
    without = json.loads(mlxops("test tiny all.jsonl --json --metrics perplexity")[1])

    assert without["rows"] == 40
    assert 0 < with_run["rows"] < 10
    assert "tested on the rows of all.jsonl kept back for validation" in with_run["notes"]
    with registry.open_read_only(tuned_project / "runs.db") as db:
        curve = registry.loss_curve(db, 2, buckets=100)
    assert with_run["scores"]["loss"]["value"] == pytest.approx(curve[-1]["validation_loss"], rel=1e-6)


@pytest.mark.slow
def test_samples_are_drawn_by_the_seed(tested: Tested) -> None:
    found = [tested(f"tiny data/train.jsonl --num-samples 5 --seed {seed}") for seed in (0, 0, 1)]

    assert [each["rows"] for each in found] == [5, 5, 5]
    assert found[0]["scores"] == found[1]["scores"] != found[2]["scores"]
    assert "5 of 12 rows drawn" in found[0]["notes"]


def test_without_masking_the_trained_tokens_are_all(tested: Tested) -> None:
    scores = tested("tiny --no-mask-prompt")["scores"]

    assert scores["perplexity"]["value"] == scores["perplexity_all"]["value"]


@pytest.mark.slow
def test_the_screen_shows_scores_intervals_and_where_they_are(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops("test --run tuned --metrics perplexity --compare-base")

    assert code == 0
    assert out.startswith("models/tiny with tuned, 4 rows of data/valid.jsonl\n")
    assert re.search(r"^perplexity +\d+\.\d+ +\d+\.\d+ +-\d+\.\d+ +-\S+ to -\S+ +4/0/0 *$", out, re.MULTILINE)
    assert "recorded as evaluation 2;" in out
    assert "perplexity, base model: 4\n" in err


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        ("test", 2, "no model given"),
        ("test tiny --metrics speed", 2, "--metrics takes perplexity, generation_quality, not 'speed'"),
        ("test tiny --compare-base", 2, "--compare-base compares with an adapter"),
        ("test tiny missing.jsonl", 2, "no data at missing.jsonl"),
        ("test --run tuned data", 2, "'data' holds rows and is no model"),
        ("test --run tuned --output runs.db", 2, "--output takes a file that ends in .json"),
        ("test tiny --max-seq-length 2", 2, "no row has anything to measure within 2 tokens"),
        ("test tiny --num-samples 0", 2, "--num-samples takes a whole number at least 1"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_a_model_is_loaded(
    mlxops: Typed, tuned_project: Path, typed: str, code: int, words: str
) -> None:
    ended, out, err = mlxops(typed)

    assert (ended, out) == (code, "")
    assert words in err


def test_broken_rows_are_named_by_line(mlxops: Typed, tuned_project: Path) -> None:
    Path("broken.jsonl").write_text(rows(1) + "{\n")

    code, _, err = mlxops("test tiny broken.jsonl --metrics perplexity")

    assert code == 2
    assert "broken.jsonl:2" in err


def test_results_that_cannot_be_written_are_shown_all_the_same(mlxops: Typed, tuned_project: Path) -> None:
    Path("file").write_text("")

    code, out, err = mlxops("test tiny --metrics perplexity --output file/results.json")

    assert code == 1
    assert "perplexity" in out
    assert "cannot be written" in err


def test_a_plan_is_made_without_writing_an_evaluation(tuned_project: Path, tmp_path: Path) -> None:
    here = Invocation(project=Project.at(tuned_project), cache=tmp_path / "cache")

    plan = job.plan(here, TestConfig(run="tuned", metrics=["perplexity"]), lambda *_: None)

    assert isinstance(plan.on, job.TestedRows)
    assert [record.origin for record in plan.on.records] == [f"data/valid.jsonl:{line}" for line in range(1, 5)]
    assert registry.query(tuned_project / "runs.db", "select count(*) from evaluations").rows[0][0] == 0


def test_measures_of_two_models_can_be_compared(tuned_project: Path, tmp_path: Path) -> None:
    here = Invocation(project=Project.at(tuned_project), cache=tmp_path / "cache")
    config = TestConfig(run="tuned", metrics=["perplexity"], compare_base=True)

    measured: list[found.TestResults] = []
    job.run(job.plan(here, config, lambda *_: None), lambda *_: None, measured)

    (results,) = measured
    assert results.base is not None
    assert compare(results.base.measures[0], results.tuned.measures[0]) == results.compared[0]


# generation_quality ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_answers_are_those_that_query_gives(mlxops: Typed, tuned_project: Path) -> None:
    options = "--run tuned --max-tokens 8 --json"
    code, out, err = mlxops(f"test {options} --metrics generation_quality --data data/train.jsonl --num-samples 5")
    answers = json.loads(out)["answers"]

    assert code == 0, err
    assert len(answers) == 5
    asked = [json.loads(mlxops(f"query {options} -p '{each['prompt']}'")[1])["answer"] for each in answers]
    assert [each["answer"] for each in answers] == asked


@pytest.mark.slow
def test_answers_are_recorded_beside_those_of_the_base(mlxops: Typed, tuned_project: Path) -> None:
    code, _, err = mlxops("test --run tuned --metrics generation_quality --max-tokens 4 --compare-base")
    assert code == 0, err

    with registry.open_read_only(tuned_project / "runs.db") as db:
        answers = registry.last_answers(db, 1, 10)
    assert [(each["row"], each["prompt"], each["expected"]) for each in answers] == [
        (n + 1, f"What is {n}?", f"It is {n}.") for n in range(4)
    ]
    assert all(each["base_answer"] is not None for each in answers)
    scores = registry.query(
        tuned_project / "runs.db",
        "select json_extract(scores, '$.origin'), json_extract(scores, '$.answer_tokens') from answers",
    ).rows
    assert [row[0] for row in scores] == [f"data/valid.jsonl:{line}" for line in (1, 2, 3, 4)] * 2
    assert all(0 <= row[1] <= 4 for row in scores)


@pytest.mark.slow
def test_both_metrics_are_measured_unless_one_is_given(mlxops: Typed, tuned_project: Path) -> None:
    scores = json.loads(mlxops("test --run tuned --max-tokens 2 --json")[1])["scores"]
    listed = json.loads(mlxops("test tiny data --metrics perplexity generation_quality --max-tokens 2 --json")[1])[
        "scores"
    ]

    assert list(scores) == list(listed)
    assert {"perplexity", "rouge_l", "chrf", "exact_match", "stopped"} <= set(scores)


def test_rows_of_text_have_a_perplexity_and_are_not_asked(mlxops: Typed, tuned_project: Path) -> None:
    Path("text.jsonl").write_text(json.dumps({"text": "Once upon a time"}) + "\n")

    code, out, _ = mlxops("test tiny text.jsonl --json")
    refused = mlxops("test tiny text.jsonl --metrics generation_quality")

    assert code == 0
    assert "rouge_l" not in json.loads(out)["scores"]
    assert "1 row without a question and an answer in words: not asked" in json.loads(out)["notes"]
    assert refused[0] == 2


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with metrics, as pip leaves it."""
    folder = tmp_path / "site"
    (folder / "politeness-1.dist-info").mkdir(parents=True)
    (folder / "politeness-1.dist-info" / "METADATA").write_text("Name: politeness\nVersion: 1\n")
    (folder / "politeness-1.dist-info" / "entry_points.txt").write_text(
        "[mlxops.metrics]\npolite = politeness:polite\nbroken = politeness:broken\nnumber = politeness:number\n"
    )
    (folder / "politeness.py").write_text(
        "def polite(*, prompt, expected, answer):\n    return None if prompt.endswith('0?') else len(expected)\n\n\n"
        "def broken(**_):\n    raise KeyError('x')\n\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("installed")
def test_an_installed_metric_is_measured_by_its_name(mlxops: Typed, tuned_project: Path) -> None:
    code, out, err = mlxops("test --run tuned --metrics polite --max-tokens 1 --json")

    assert code == 0, err
    (score,) = json.loads(out)["scores"].items()
    assert score == ("polite", {"value": 8.0, "standard_error": 0.0, "rows": 3, "better": "higher"})


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("broken", 1, "the metric 'broken' fails on data/valid.jsonl:1: KeyError: 'x'"),
        ("number", 2, "'number' of the entry points 'mlxops.metrics' is no metric"),
        ("politest", 2, "--metrics takes perplexity, generation_quality, broken, number, polite, not 'politest'"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_told(
    mlxops: Typed, tuned_project: Path, name: str, code: int, words: str
) -> None:
    ended, _, err = mlxops(f"test --run tuned --metrics {name} --max-tokens 1")

    assert ended == code
    assert words in err
