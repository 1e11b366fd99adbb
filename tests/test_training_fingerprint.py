"""What decides the weights of a run, and the hash of it."""

from dataclasses import fields, replace

import pytest

from mlxops.config import LoraConfig
from mlxops.options import options_of
from mlxops.training.fingerprint import deciding_settings, fingerprint, uses_total


def settings_of(**changed) -> dict:
    return deciding_settings(LoraConfig(**changed), model="m", data="d", target=1000)


def test_every_setting_of_a_run_has_a_class():
    assert {option.name for option in options_of(LoraConfig) if option.role} == {
        each.name for each in fields(LoraConfig)
    }


@pytest.mark.parametrize(
    "name", [option.name for option in options_of(LoraConfig) if option.role != "weights" and option.name != "epochs"]
)
def test_what_only_watches_and_keeps_does_not_change_the_fingerprint(name):
    others = {int: 7, float: 7.0, str: "other", bool: True, list: ["other"]}
    option = next(option for option in options_of(LoraConfig) if option.name == name)

    assert fingerprint(settings_of(**{name: others[option.kind]})) == fingerprint(settings_of())


@pytest.mark.parametrize(
    "changed",
    [
        {"fine_tune_type": "dora"},
        {"num_layers": 4},
        {"lora_rank": 4},
        {"lora_scale": 10.0},
        {"lora_dropout": 0.1},
        {"lora_keys": ["self_attn.q_proj"]},
        {"optimizer": "sgd"},
        {"optimizer_config": {"adam": {"eps": 1e-6}}},
        {"learning_rate": 1e-4},
        {"lr_schedule": "cosine_decay"},
        {"warmup": 10},
        {"max_grad_norm": 1.0},
        {"batch_size": 8},
        {"grad_accumulation_steps": 2},
        {"max_seq_length": 1024},
        {"mask_prompt": False},
        {"grad_checkpoint": True},
        {"seed": 1},
    ],
)
def test_what_decides_the_weights_changes_the_fingerprint(changed):
    assert fingerprint(settings_of(**changed)) != fingerprint(settings_of())


def test_model_and_data_are_in_the_fingerprint():
    here = [
        fingerprint(deciding_settings(LoraConfig(), model=model, data=data, target=1))
        for model, data in (("m", "d"), ("m", "e"), ("n", "d"))
    ]

    assert len(set(here)) == 3


def test_the_arguments_of_another_optimizer_decide_nothing():
    assert fingerprint(settings_of(optimizer_config={"sgd": {"momentum": 0.9}})) == fingerprint(settings_of())


def test_the_order_in_which_keys_are_named_decides_nothing():
    first, other = (settings_of(lora_keys=keys) for keys in (["a", "b"], ["b", "a"]))

    assert fingerprint(first) == fingerprint(other)


@pytest.mark.parametrize(
    ("changed", "is_used"),
    [
        ({}, False),
        ({"lr_schedule": "cosine_decay"}, True),
        ({"lr_schedule": "linear_schedule"}, True),
        ({"lr_schedule": "cosine_decay", "lr_schedule_arguments": [100.0]}, False),
        ({"lr_schedule": "step_decay", "lr_schedule_arguments": [0.5, 10.0]}, False),
        ({"warmup": 100}, False),
    ],
)
def test_the_target_decides_the_weights_only_where_the_schedule_runs_over_it(changed, is_used):
    config = replace(LoraConfig(), **changed)
    prints = {fingerprint(deciding_settings(config, model="m", data="d", target=target)) for target in (10, 15)}

    assert uses_total(config) is is_used
    assert len(prints) == 1 + is_used


def test_a_fingerprint_is_this_one():
    assert fingerprint({"seed": 0, "lora_rank": 8}) == fingerprint({"lora_rank": 8, "seed": 0})
    assert fingerprint({"lora_rank": 8, "seed": 0})[:16] == "6daa4571f4375e46"
