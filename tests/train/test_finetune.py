"""`finetune`: the same training as `lora`, by epochs, under the older names and in their units."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import utils

from mlxops import registry
from mlxops.config import FinetuneConfig, LoraConfig
from mlxops.jobs.train.finetune import translate
from mlxops.options import options_of

Typed = Callable[..., tuple[int, str, str]]


def translated(**options: Any) -> LoraConfig:
    return translate(FinetuneConfig(model="m", **options)).config


def test_without_options_it_is_lora_by_three_epochs() -> None:
    assert translated() == LoraConfig(model="m", epochs=3)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"lora_alpha": 32.0, "lora_rank": 16}, {"lora_scale": 2.0, "lora_rank": 16}),
        ({"lora_alpha": 8.0}, {"lora_scale": 1.0}),
        ({"lora_scale": 10.0}, {"lora_scale": 10.0}),
        ({"warmup_steps": 10}, {"warmup": 10}),
        ({"warmup_steps": 10, "grad_accumulation_steps": 4}, {"warmup": 40, "grad_accumulation_steps": 4}),
        ({"eval_every": 5}, {"steps_per_eval": 5}),
        ({"output": "here", "de_quantize": True, "yes": True}, {}),
        ({"full": True}, {"fine_tune_type": "full", "num_layers": -1}),
        ({"full": True, "num_layers": 2}, {"fine_tune_type": "full", "num_layers": 2}),
    ],
)
def test_an_option_becomes_that_of_the_training(options: dict[str, Any], settings: dict[str, Any]) -> None:
    assert translated(**options) == replace(LoraConfig(model="m", epochs=3), **settings)


def test_an_option_of_both_has_the_same_type_range_class_and_default() -> None:
    of_lora = {each.name: each for each in options_of(LoraConfig)}
    differing = {"epochs", "num_layers", "mask_prompt"}

    for each in options_of(FinetuneConfig):
        if each.name in of_lora and each.name not in differing:
            assert each == of_lora[each.name]


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"lora_alpha": 32.0, "lora_rank": 16}, "--lora-alpha 32 with rank 16 is a scale of 2 (alpha / rank)"),
        ({"warmup_steps": 3, "grad_accumulation_steps": 2}, "--warmup-steps 3 are 6 iterations"),
        ({"full": True, "lora_rank": 4, "lora_alpha": 2.0}, "so --lora-rank and --lora-alpha have no effect"),
    ],
)
def test_what_became_of_an_option_is_said(options: dict[str, Any], note: str) -> None:
    (said,) = translate(FinetuneConfig(model="m", **options)).notes

    assert note in said


@pytest.mark.slow
def test_a_preview_starts_nothing(mlxops: Typed, tuned_project: Path) -> None:
    code, out, _ = mlxops("finetune tiny data --epochs 2 --preview --json")

    assert code == 0
    assert (json.loads(out)["decision"], json.loads(out)["target"]) == ("new", 6)


def test_alpha_and_scale_exclude_each_other(mlxops: Typed, tuned_project: Path) -> None:
    code, _, err = mlxops("finetune tiny data --lora-alpha 2 --lora-scale 2")

    assert code == 2
    assert err.startswith("--lora-alpha and --lora-scale say the same thing")


@pytest.mark.slow
def test_it_is_the_run_that_lora_makes(mlxops: Typed, tuned_project: Path) -> None:
    code, _, err = mlxops("finetune tiny data --epochs 1 --lora-rank 4 --lora-alpha 8 --name mine")
    again = mlxops("lora tiny data --epochs 1 --lora-rank 4 --lora-scale 2")

    assert code == 0, err
    assert "mine: already at iteration 3 of 3" in again[1]
    with registry.open_read_only(tuned_project / "runs.db") as db:
        stored = registry.find_run(db, "mine")["config"]
    assert (stored["lora_scale"], stored["fine_tune_type"], "lora_alpha" in stored) == (2.0, "lora", False)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--lora-alpha 8", "--full --learning-rate 1e-3"])
def test_output_is_a_model_of_what_was_trained(mlxops: Typed, tuned_project: Path, options: str) -> None:
    command = f"finetune tiny data --epochs 1 {options} --name mine --output 'out/my model'"
    code, out, err = mlxops(f"{command} --json")
    assert code == 0, err

    said = json.loads(out)
    model, _ = utils.load(str(tuned_project / "out" / "my model"))
    wanted, _ = utils.load("models/tiny", adapter_path="adapters/mine")
    again, longer = mlxops(command), mlxops(command.replace("--epochs 1", "--epochs 2"))
    tokens = mx.array([[1, 5, 9, 3]])
    assert (said["name"], said["fused"]["path"], said["fused"]["parity"]["rows"]) == ("mine", "out/my model", 4)
    assert np.allclose(np.array(model(tokens)), np.array(wanted(tokens)), atol=1e-5)
    assert (again[0], "already at iteration 3 of 3" in again[1], "fused already" in again[1]) == (0, True, True)
    assert (longer[0], "out/my model: fused\n" in longer[1]) == (0, True), longer[2]


def test_a_place_that_is_taken_is_refused_before_the_training(mlxops: Typed, tuned_project: Path) -> None:
    code, _, err = mlxops("finetune tiny data --epochs 1 --name mine --output models/tiny --yes")

    assert (code, "is there already" in err, Path("adapters/mine").exists()) == (3, True, False)


@pytest.mark.slow
def test_the_model_of_another_run_is_replaced_only_where_that_is_said(mlxops: Typed, tuned_project: Path) -> None:
    assert mlxops("model.fuse tuned --output out")[0] == 0
    command = "finetune tiny data --epochs 1 --name mine --output out"

    refused, replaced = mlxops(command), mlxops(f"{command} --yes")

    assert (refused[0], "out is a model of 'tuned'" in refused[2]) == (3, True)
    assert (replaced[0], json.loads(Path("out/fused.json").read_text())["run"]) == (0, "mine")
