"""Tasks of lm-eval on a loaded model: its figures, on rows that are asked once, recorded and shown like any test."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlxops import registry
from mlxops.models.generation import LoadedModel, generate
from mlxops.models.loading import load_for_generation

pytestmark = pytest.mark.slow

Typed = Callable[..., tuple[int, str, str]]

QUESTIONS = [{"question": f"What is {n}?", "choices": [f"It is {n}.", "No."], "right": n % 2} for n in range(4)]
TASKS = {
    "chosen": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "f1"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
    "read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{choices[0]}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "running": {"output_type": "generate_until", "doc_to_text": "", "doc_to_target": "", "unsafe_code": True},
    "elsewhere": {"dataset_path": "somebody/rows-that-are-not-here", "output_type": "multiple_choice"},
}
OPTIONS = "--include-path tasks --json"


@pytest.fixture
def project(tuned_project: Path) -> Path:
    """The tuned project with tasks of its own, as YAML, which JSON is too."""
    folder = tuned_project / "tasks"
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test"}
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **local, **task}))
    return tuned_project


@pytest.fixture
def tested(mlxops: Typed, project: Path) -> Callable[[str], Any]:
    """The results of `mlx-toolkit test` with the tasks of the project."""

    def run(options: str) -> Any:
        code, out, err = mlxops(f"test {options} {OPTIONS}")
        assert code == 0, err
        return json.loads(out)

    return run


def test_an_adapter_scores_in_tasks_beside_its_base_and_is_recorded(
    tested: Callable[[str], Any], mlxops: Typed, project: Path
) -> None:
    found = tested("--run tuned --tasks chosen,written,read --compare-base --num-fewshot 1 --seed 3")
    again = tested("--run tuned --tasks chosen,written,read --num-fewshot 1 --seed 3")

    scores = found["scores"]
    assert list(scores) == [
        *("chosen/acc", "chosen/f1", "chosen/acc_norm", "written/exact_match"),
        *("read/word_perplexity", "read/bits_per_byte"),
    ]
    # the F1 of a class is a figure of all rows together; the others are compared row by row
    assert set(scores) - set(found["compared"]) == {"chosen/f1"}
    assert scores["read/bits_per_byte"]["value"] < scores["read/bits_per_byte"]["base_value"]
    assert found["compared"]["read/bits_per_byte"]["sure"]
    assert (found["data"], found["rows"]) == ("chosen,written,read", 12)
    # the same questions with the same examples, of base and adapter and each time
    assert [each["prompt"] for each in again["answers"]] == [each["prompt"] for each in found["answers"]]
    assert [each["answer"] for each in again["answers"]] == [each["answer"] for each in found["answers"]]
    assert {name: score["value"] for name, score in again["scores"].items()} == {
        name: score["value"] for name, score in scores.items()
    }
    assert again["data_sha256"] == found["data_sha256"]
    # the first row says what is right, by the words of the choice
    assert [(each["row"], each["expected"]) for each in found["answers"][:2]] == [
        ("chosen:1", "It is 0."),
        ("chosen:2", "No."),
    ]
    assert found["answers"][1]["prompt"].count("What is") == 2
    recorded = registry.query(
        project / "runs.db",
        "select metric, value, base_value from evaluation_summary where id = :id and kind = 'tasks' and run = 'tuned'",
        {"id": found["evaluation_id"]},
    ).rows
    assert {row[0]: (row[1], row[2]) for row in recorded} == {
        name: (score["value"], score["base_value"]) for name, score in scores.items()
    }
    shown = mlxops("run.show tuned")[1]
    assert "tasks" in shown
    assert "read/bits_per_byte" in shown


def test_models_are_compared_in_tasks_and_so_are_checkpoints(
    mlxops: Typed, project: Path, tested: Callable[[str], Any]
) -> None:
    code, out, err = mlxops(f"eval.compare tiny,tuned:4,tuned --tasks read {OPTIONS}")
    assert code == 0, err
    compared = json.loads(out)

    checkpoints = tested("--run tuned --all-checkpoints --tasks read --num-samples 2")
    drawn = mlxops("test --run tuned:4 --compare-base --tasks chosen,read --include-path tasks")
    runs = mlxops("sql \"select data, metric, rows from evaluation_summary where run = 'tuned'\" --json")[1]

    values = [each["scores"]["read/bits_per_byte"]["value"] for each in compared]
    assert len(set(values)) == 3
    difference = compared[2]["compared"]["read/bits_per_byte"]["difference"]
    assert difference == pytest.approx(values[2] - values[0])
    assert [each["iteration"] for each in checkpoints] == [4, 8]
    assert {each["rows"] for each in checkpoints} == {2}
    assert drawn[0] == 0, drawn[2]
    assert "chosen/f1" in drawn[1]
    assert {row["data"] for row in json.loads(runs)} == {"read", "chosen,read"}


def test_what_cannot_be_asked_is_a_sentence_before_the_model_is_loaded(
    mlxops: Typed, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = project / "tasks" / "broken.yaml"
    broken.write_text(json.dumps({"task": "broken", "dataset_path": "json", "output_type": "singing"}))
    said = {
        options: mlxops(f"test --run tuned {options} --json")
        for options in (
            "--tasks elsewhere --include-path tasks",
            "--tasks broken --include-path tasks",
            "--tasks running --include-path tasks",
            "--tasks chosen --include-path nowhere",
            "--tasks chosen --data data --include-path tasks",
            "--num-fewshot 2",
        )
    }
    compared = mlxops("eval.compare tiny,tuned --tasks chosen --metrics perplexity")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    without = mlxops("test --run tuned --tasks chosen --include-path tasks")

    assert {options: (code, out) for options, (code, out, _) in said.items()} == dict.fromkeys(said, (2, ""))
    sentences = [err.splitlines()[0] for _, _, err in said.values()]
    assert sentences[0] == "the data set of the task 'elsewhere' is not on this machine"
    assert "HF_HUB_OFFLINE is set; with a network the same command fetches it" in next(iter(said.values()))[2]
    assert sentences[1].startswith("the task 'broken' cannot be loaded: ")
    assert sentences[2] == "the task 'running' runs code that the model wrote, which can do all that you can"
    assert sentences[3].endswith("nowhere' is no folder")
    assert sentences[4] == "--tasks brings its own questions and scores, so --data has no meaning"
    assert sentences[5] == "--num-fewshot is about the tasks of lm-eval, and none is named"
    assert (compared[0], "so --metrics has no meaning" in compared[2]) == (2, True)
    assert without[0] == 2
    assert without[2].splitlines() == [
        "--tasks needs the package lm-eval",
        "hint: `pip install 'mlxops[tasks]'` brings it (0.6 GB)",
    ]


# the model as lm-eval asks it ---------------------------------------------------------------------------------------


@pytest.fixture
def loaded(tiny_model: Path) -> LoadedModel:
    return load_for_generation(tiny_model, identify=lambda: "tiny")


def asked(loaded: LoadedModel, **options: Any) -> Any:
    from mlxops.models.lm_eval_model import LoadedLM

    usual = {"max_tokens": None, "batch_size": 2, "seed": 0, "is_chat": False, "template_config": {}}
    usual |= {"clean": lambda prompt, text: text, "progress": lambda done, total: None}
    return LoadedLM(loaded, **{**usual, **options})


class Request:
    """A request as lm-eval makes it."""

    def __init__(self, *args: Any) -> None:
        self.args = args


def likelihood(loaded: LoadedModel, tokens: list[int], count: int) -> float:
    """How likely the last `count` tokens are behind the others, in nats, from one pass over all of them."""
    import mlx.core as mx
    import numpy as np

    logits = np.array(loaded.model(mx.array(tokens[:-1])[None])[0].astype(mx.float32), dtype=np.float64)
    scores = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return float(sum(scores[place - 1][tokens[place]] for place in range(len(tokens) - count, len(tokens))))


def test_texts_are_as_likely_as_in_one_pass_over_them(loaded: LoadedModel) -> None:
    model, encode = asked(loaded), loaded.tokenizer.encode
    context, choices = "What is three?", [" It is three.", " No", " It is four. Or five."]
    empty = model.loglikelihood([Request("", "Once upon")])
    found = model.loglikelihood([Request(context, choice) for choice in choices])

    for (value, _), choice in zip(found, choices, strict=True):
        whole = encode(context + choice)
        assert value == pytest.approx(likelihood(loaded, whole, len(whole) - len(encode(context))), abs=1e-4)
    alone = [model.prefix_token_id, *encode("Once upon", add_special_tokens=False)]
    assert empty[0][0] == pytest.approx(likelihood(loaded, alone, len(alone) - 1), abs=1e-4)
    (rolling,) = model.loglikelihood_rolling([Request("Once upon")])
    assert rolling == pytest.approx(empty[0][0], abs=1e-4)
    # what the model would write itself is the likeliest
    said = generate(loaded, encode(context), max_tokens=4)
    if said.text and encode(context + said.text) == [*encode(context), *said.tokens]:
        assert model.loglikelihood([Request(context, said.text)])[0][1]


def test_a_text_longer_than_the_context_keeps_its_end(loaded: LoadedModel) -> None:
    from dataclasses import replace

    short = replace(loaded, context_length=16)
    words = " ".join(f"word{n}" for n in range(30))
    tokens = loaded.tokenizer.encode(words + " end")
    count = len(tokens) - len(loaded.tokenizer.encode(words))

    ((value, _),) = asked(short).loglikelihood([Request(words, " end")])
    (rolling,) = asked(short).loglikelihood_rolling([Request(words)])

    assert value == pytest.approx(likelihood(loaded, tokens[-17:], count), abs=1e-4)
    assert math.isfinite(rolling)
    (text,) = asked(short).generate_until([Request(words, {"until": ["."], "max_gen_toks": 4})])
    assert isinstance(text, str)


def test_an_answer_ends_where_the_task_says_and_is_that_of_the_model_alone(loaded: LoadedModel) -> None:
    contexts = [f"What is {n}?" for n in range(3)]
    alone = [generate(loaded, loaded.tokenizer.encode(each), max_tokens=12).text for each in contexts]
    end = alone[0][4]  # a text that ends the first answer after some characters

    whole = asked(loaded).generate_until([Request(each, {"until": [], "max_gen_toks": 12}) for each in contexts])
    cut = asked(loaded).generate_until([Request(each, {"until": end, "max_gen_toks": 12}) for each in contexts])
    short = asked(loaded, max_tokens=3).generate_until([Request(contexts[0], {"max_gen_toks": 12})])

    assert whole == alone
    assert cut == [text.split(end)[0] for text in alone]
    assert short == [generate(loaded, loaded.tokenizer.encode(contexts[0]), max_tokens=3).text]
