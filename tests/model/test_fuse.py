"""`model.fuse` as a person types it: what is fused, where it goes, what is compared and recorded, what is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import yaml
from mlx_lm import utils
from small_adapters import make_adapter

from mlxops import registry
from mlxops.jobs.model import needs
from mlxops.jobs.model.card import hub_id
from mlxops.models.tiny import make_tiny
from mlxops.projects.project import Project

pytestmark = pytest.mark.slow

Typed = Callable[..., tuple[int, str, str]]


def fused(mlxops: Typed, words: str = "tuned") -> dict[str, Any]:
    code, out, err = mlxops(f"model.fuse {words} --json")
    assert code == 0, err
    return dict(json.loads(out))


def query(sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect("runs.db")) as db, db:
        return db.execute(sql).fetchall()


def test_a_run_becomes_a_model_that_says_the_same(mlxops: Typed, tuned_project: Path) -> None:
    said = fused(mlxops)

    tokens = mx.array([[1, 5, 9, 3]])
    wanted, _ = utils.load("models/tiny", adapter_path="adapters/tuned")
    model, _ = utils.load("models/tuned-fused")
    assert (said["path"], said["model"], said["layers"]) == ("models/tuned-fused", "tuned-fused", 14)
    assert np.allclose(np.array(model(tokens)), np.array(wanted(tokens)), atol=1e-5)
    assert (said["parity"]["changed_tokens"], said["parity"]["logit_difference"] < 1e-5) == (0, True)
    assert (said["parity"]["data"], said["parity"]["rows"]) == ("data/valid.jsonl", 4)


def test_the_comparison_is_an_evaluation_of_the_runs_checkpoint(mlxops: Typed, tuned_project: Path) -> None:
    said = fused(mlxops)

    evaluations = query(
        "SELECT evaluations.id, runs.name, checkpoints.iteration, evaluations.model, evaluations.adapter_path"
        " FROM evaluations JOIN runs ON runs.id = evaluations.run_id JOIN checkpoints ON checkpoints.id = checkpoint_id"
        " WHERE evaluations.kind = 'fuse' ORDER BY 1"
    )
    scores = query("SELECT metric, value, base_value FROM evaluation_summary WHERE kind = 'fuse' ORDER BY id, metric")
    assert [row[1:] for row in evaluations] == [
        ("tuned", 8, "models/tiny", "adapters/tuned/adapters.safetensors"),
        ("tuned", 8, "models/tuned-fused", None),
    ]
    assert evaluations[1][0] == said["evaluation_id"]
    assert [row[0] for row in scores] == [
        "perplexity", "changed_tokens", "kl_divergence", "logit_difference", "perplexity",
    ]  # fmt: skip
    assert scores[-1][1:] == (said["parity"]["perplexity_after"], said["parity"]["perplexity_before"])


def test_a_fusion_is_no_gain_of_the_training(mlxops: Typed, tuned_project: Path) -> None:
    said = fused(mlxops)["parity"]

    shown = mlxops("run.show tuned")[1]

    assert json.loads(mlxops("sql @gains --format json")[1]) == []
    assert f", base and adapter {said['perplexity_before']:.3f}" in shown


def test_the_perplexity_is_that_of_a_test_on_the_same_rows(mlxops: Typed, tuned_project: Path) -> None:
    said = fused(mlxops)["parity"]

    out = [
        json.loads(mlxops(f"test {model} --data data/valid.jsonl --metrics perplexity --json")[1])
        for model in ("--run tuned", "--model tuned-fused")
    ]

    before, after = (each["scores"]["perplexity"]["value"] for each in out)
    assert (said["perplexity_before"], said["perplexity_after"]) == pytest.approx((before, after), rel=1e-6)


def test_the_same_command_again_changes_nothing(mlxops: Typed, tuned_project: Path) -> None:
    first = fused(mlxops)
    before = {file: file.stat().st_mtime_ns for file in Path("models/tuned-fused").iterdir()}

    again = fused(mlxops)

    assert (first["was_there"], again["was_there"], again["evaluation_id"]) == (False, True, first["evaluation_id"])
    assert again["parity"] == first["parity"]
    assert {file: file.stat().st_mtime_ns for file in Path("models/tuned-fused").iterdir()} == before
    assert query("SELECT count(*) FROM evaluations WHERE kind = 'fuse'") == [(2,)]


def test_the_options_of_chat_and_of_mlx_lm_name_the_same(mlxops: Typed, tuned_project: Path) -> None:
    first = fused(mlxops, "--run tuned --save-path out")
    again = fused(mlxops, "--model models/tiny --adapter-path adapters/tuned --save-path out --dequantize --yes")

    assert (first["path"], again["path"]) == ("out", "out")
    assert again["notes"] == ["the base model is not quantized, so `--de-quantize` has no effect"]


def test_a_checkpoint_has_a_name_of_its_own_and_another_one_asks(mlxops: Typed, tuned_project: Path) -> None:
    assert fused(mlxops, "tuned:4")["path"] == "models/tuned-4-fused"

    fused(mlxops, "tuned:4 --output models/mine")
    code, _, err = mlxops("model.fuse tuned --output models/mine")
    said = json.loads(Path("models/mine/fused.json").read_text())
    again = fused(mlxops, "tuned --output models/mine --yes")

    assert (code, "no terminal to confirm on" in err, said["iteration"]) == (3, True, 4)
    assert (again["was_there"], json.loads(Path("models/mine/fused.json").read_text())["iteration"]) == (False, 8)
    assert sorted(path.name for path in Path("models").iterdir()) == ["mine", "tiny", "tuned-4-fused"]


@pytest.mark.parametrize("words", ["--output models/tiny", "--output data", "--output data/train.jsonl", "--name tiny"])
def test_what_is_no_fused_model_is_never_replaced(words: str, mlxops: Typed, tuned_project: Path) -> None:
    code, _, err = mlxops(f"model.fuse tuned {words} --yes")

    assert (code, "is there already" in err) == (3, True)
    assert Path("models/tiny/config.json").is_file()
    assert Path("data/train.jsonl").is_file()


def test_an_adapter_of_another_program_wants_rows_or_none(mlxops: Typed, tuned_project: Path) -> None:
    shutil.copytree("adapters/tuned", "theirs")
    settings = json.loads(Path("theirs/adapter_config.json").read_text())
    del settings["mlxops"]
    Path("theirs/adapter_config.json").write_text(json.dumps(settings))

    code, _, err = mlxops("model.fuse theirs")
    with_rows = fused(mlxops, "theirs --data data/valid.jsonl")
    without = fused(mlxops, "theirs --no-check --name unchecked")

    assert (code, "does not say what it was trained on" in err, "`--no-check`" in err) == (2, True, True)
    assert (with_rows["path"], with_rows["parity"]["changed_tokens"]) == ("models/theirs-fused", 0)
    assert (without["parity"], without["evaluation_id"]) == (None, None)
    assert "was not checked" in Path("models/unchecked/README.md").read_text()
    assert fused(mlxops, "theirs --data data/valid.jsonl --name unchecked --yes")["parity"] is not None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("", 2, "nothing says what is fused"),
        ("tuned --run tuned", 2, "'tuned' and 'tuned' both say what is fused"),
        ("nothing", 2, "no run 'nothing'"),
        ("tuned:5", 2, "no checkpoint at iteration 5"),
        ("tuned --name a/b", 2, "cannot be the name of a model"),
        ("tuned --name a --output b", 2, "both say where"),
        ("tuned --quantize 3", 2, "--quantize"),
        ("tuned --data nowhere.jsonl", 2, "nowhere.jsonl"),
        ("data", 2, "no run 'data'"),
    ],
)
def test_what_cannot_be_fused_is_said(words: str, code: int, said: str, mlxops: Typed, tuned_project: Path) -> None:
    ended, _, err = mlxops(f"model.fuse {words}")

    assert (ended, said in err) == (code, True), err
    assert sorted(path.name for path in Path("models").iterdir()) == ["tiny"]


def test_the_card_says_what_is_known_and_names_no_folder(mlxops: Typed, tuned_project: Path) -> None:
    Path("models/tiny/README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n")

    said = fused(mlxops)

    text = Path("models/tuned-fused/README.md").read_text()
    _, metadata, words = text.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "lora"],
    }
    assert "A fine-tuning of `tiny` (LoRA)" in words
    assert "| learning rate | 0.02 |" in words
    assert f"| perplexity of this model | {said['parity']['perplexity_after']:.3f} |" in words
    assert str(tuned_project) not in text
    assert str(Path.home()) not in text
    assert (Path("models/tuned-fused") / "Modelfile").read_text().startswith("#")


def test_the_card_names_what_the_base_was_downloaded_from(mlxops: Typed, tuned_project: Path) -> None:
    with registry.open_registry(tuned_project / "runs.db") as db:
        registry.record_model(
            db,
            "models/tiny",
            source="org/Tiny",
            revision="abc",
            bytes=1,
            quantization=None,
            sha256={"config.json": "0"},
        )
    assert mlxops("model.convert tiny --quantize 8")[0] == 0

    said = fused(mlxops)

    cards = [Path(folder, "README.md").read_text() for folder in (said["path"], "models/tiny-8bit")]
    assert ["base_model: org/Tiny\n" in card for card in cards] == [True, True]
    assert "[org/Tiny](https://huggingface.co/org/Tiny)" in cards[0]
    assert hub_id(Project.at(tuned_project), tuned_project / "models" / "tiny-8bit") == "org/Tiny"


def test_two_models_that_do_not_fit_into_memory_are_refused_before_they_are_loaded(
    mlxops: Typed, tuned_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "room", lambda: 1_000_000)
    code, _, err = mlxops("model.fuse tuned")
    is_untouched = not Path("models/tuned-fused").exists()
    alone, _, _ = mlxops("model.fuse tuned --no-check")

    assert (code, "takes about" in err, "1.0 MB are free" in err, "`--no-check`" in err) == (1, True, True, True), err
    assert is_untouched
    assert alone == 0


def test_what_the_chat_template_was_told_is_said(mlxops: Typed, tuned_project: Path) -> None:
    file = Path("adapters/tuned/adapter_config.json")
    settings = json.loads(file.read_text())
    settings["mlxops"]["config"]["chat_template_config"] = {"enable_thinking": False}
    file.write_text(json.dumps(settings))

    said = fused(mlxops, "adapters/tuned")

    assert said["notes"] == ['in training its chat template was told {"enable_thinking": false}']
    assert '| told to the chat template | {"enable_thinking": false} |' in Path(said["path"], "README.md").read_text()


def test_a_model_that_is_fused_is_quantized_where_that_is_asked_for(mlxops: Typed, tuned_project: Path) -> None:
    said = fused(mlxops, "tuned --quantize 8")

    config = json.loads(Path("models/tuned-fused-8bit/config.json").read_text())
    assert config["quantization"] == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert said["parity"]["kl_divergence"] > 0
    assert not Path("models/tuned-fused-8bit/Modelfile").exists()
    assert mlxops("query tuned-fused-8bit -p hello --max-tokens 2")[0] == 0


# A quantized base


@pytest.fixture
def quantized_project(tuned_project: Path) -> Path:
    """The tuned project with the tiny model in 4 bits, and an adapter that changes all it says."""
    packed = make_tiny(tuned_project / "models" / "packed", quantized=True)
    make_adapter(packed, tuned_project / "theirs", "lora", 4, 8, ["mlp.down_proj", "mlp.up_proj", "model.embed_tokens"])
    return tuned_project


PACKED = "theirs --model packed --data data/train.jsonl --name out"


def logits_of(folder: str, adapter: str | None, rows: list[list[int]]) -> list[np.ndarray]:
    model, _ = utils.load(folder, adapter_path=adapter)
    return [np.array(model(mx.array([row]))[0].astype(mx.float32), np.float64) for row in rows]


def test_the_loss_in_a_quantized_base_is_what_an_independent_measurement_gives(
    mlxops: Typed, quantized_project: Path
) -> None:
    said = fused(mlxops, f"{PACKED} --max-changed 100")["parity"]

    _, tokenizer = utils.load("models/packed")
    rows, starts = [], []
    for line in Path("data/train.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        rows.append(whole[: whole.index(2, len(prompt)) + 1])
        starts.append(len(prompt))
    before, after = logits_of("models/packed", "theirs", rows), logits_of("models/out", None, rows)
    spans = [slice(start - 1, len(row) - 1) for row, start in zip(rows, starts, strict=True)]
    p, q = (np.concatenate([each[span] for each, span in zip(side, spans, strict=True)]) for side in (before, after))
    targets = np.concatenate([np.array(row[start:]) for row, start in zip(rows, starts, strict=True)])
    log_p, log_q = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (p, q))
    places = np.arange(len(targets))
    assert said["tokens"] == len(targets)
    assert said["changed_tokens"] == pytest.approx((p.argmax(-1) != q.argmax(-1)).mean(), abs=1.5 / len(targets))
    assert said["kl_divergence"] == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(-1).mean(), rel=1e-3)
    assert said["perplexity_before"] == pytest.approx(np.exp(-log_p[places, targets].mean()), rel=1e-4)
    assert said["perplexity_after"] == pytest.approx(np.exp(-log_q[places, targets].mean()), rel=1e-4)


def test_too_much_lost_is_refused_and_recorded_and_leaves_no_model(mlxops: Typed, quantized_project: Path) -> None:
    code, _, err = mlxops(f"model.fuse {PACKED} --max-changed 0")

    recorded = query("SELECT value FROM scores WHERE metric = 'changed_tokens'")
    assert (code, "fused into 4 bits, part of the adapter is lost" in err, "hint: `--de-quantize`" in err) == (
        3,
        True,
        True,
    )
    assert recorded[0][0] > 0
    assert not Path("models/out").exists()
    assert [path for path in Path("models").iterdir() if path.name.startswith(".")] == []


def test_unpacked_nothing_is_lost(mlxops: Typed, quantized_project: Path) -> None:
    said = fused(mlxops, f"{PACKED} --de-quantize")

    assert (said["parity"]["changed_tokens"], said["parity"]["logit_difference"] < 1e-4) == (0, True)
    assert "quantization" not in json.loads(Path("models/out/config.json").read_text())


def test_what_stays_quantized_has_no_modelfile(mlxops: Typed, quantized_project: Path) -> None:
    fused(mlxops, f"{PACKED} --max-changed 100")

    assert json.loads(Path("models/out/config.json").read_text())["quantization"]["bits"] == 4
    assert not Path("models/out/Modelfile").exists()
