"""Options under mlx-lm's and other programs' names: they work, or a sentence says what to use instead."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.jobs.train.lora import translate
from mlxops.options import given, resolve

Typed = Callable[[str], tuple[int, str, str]]


def asked(**values: object) -> LoraConfig:
    """The settings of a command line."""
    return resolve(LoraConfig, [("", values)])


def test_a_weight_decay_is_an_argument_of_the_optimizer() -> None:
    found = translate(asked(optimizer="adamw", weight_decay=0.1, optimizer_config={"adamw": {"eps": 1e-6}, "sgd": {}}))

    assert found.config.optimizer_config == {"adamw": {"eps": 1e-6, "weight_decay": 0.1}, "sgd": {}}
    assert (found.config.weight_decay, found.notes) == (None, ())
    assert given(found.config) == {"optimizer", "weight_decay", "optimizer_config"}


def test_two_weight_decays_are_refused() -> None:
    with pytest.raises(BadRequest, match="and optimizer_config says"):
        translate(asked(optimizer="adamw", weight_decay=0.1, optimizer_config={"adamw": {"weight_decay": 0.2}}))


@pytest.mark.parametrize(
    ("values", "limit", "note"),
    [
        ({"clear_cache_threshold": "2GiB"}, None, None),
        ({"clear_cache_threshold": "1073741824"}, 1.0, "--clear-cache-threshold is taken as `--cache-limit 1`, in GiB"),
        ({"clear_cache_threshold": "1073741824", "cache_limit": 3.0}, 3.0, None),
        ({"clear_cache_threshold": "0"}, None, None),
    ],
)
def test_the_threshold_of_the_cache_is_its_limit(values: dict[str, object], limit: float, note: str | None) -> None:
    if values["clear_cache_threshold"] == "2GiB":
        with pytest.raises(BadRequest, match="--clear-cache-threshold takes a size such as 2GB, not '2GiB'"):
            translate(asked(**values))
        return

    found = translate(asked(**values))

    assert (found.config.cache_limit, list(found.notes)) == (limit, [note] if note else [])


def test_a_training_takes_what_mlx_lm_takes_and_says_what_has_no_effect(tiny_model: Path, mlxops: Typed) -> None:
    rows = "\n".join(json.dumps({"prompt": f"question {number}", "completion": "yes"}) for number in range(8))
    Path("train.jsonl").write_text(rows, encoding="utf-8")
    options = (
        f"--model {shlex.quote(str(tiny_model))} --data train.jsonl --num-layers 1 --optimizer adamw --preview --json"
    )
    plain = mlxops(f'lora {options} --optimizer-config \'{{"adamw": {{"weight_decay": 0.1}}}}\'')
    code, out, err = mlxops(
        f"lora {options} --train --test --test-batches 5 --report-to wandb --project-name mine "
        "--clear-cache-threshold 2GB --weight-decay 0.1"
    )
    schedule = mlxops(f"lora {options} --lr-schedule cosine_decay --lr-schedule-arguments 400,1e-6")
    wrong = mlxops(f"lora {options} --optimizer adam --weight-decay 0.1")

    assert code == 0, err
    assert [line.partition(":")[0] for line in err.splitlines() if line.startswith("--")] == [
        "--test is ignored",
        "--test-batches is ignored",
        "--report-to is ignored",
        "--project-name is ignored",
        "--clear-cache-threshold is taken as `--cache-limit 1.86`, in GiB",
    ]
    assert json.loads(out)["fingerprint"] == json.loads(plain[1])["fingerprint"]
    assert (schedule[0], json.loads(schedule[1])["fingerprint"] != json.loads(out)["fingerprint"]) == (0, True)
    assert (wrong[0], "`--optimizer adamw`" in wrong[2]) == (2, True), wrong[2]
