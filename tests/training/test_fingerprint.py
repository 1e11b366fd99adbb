"""What decides the weights of a run, and the hash of it."""

from dataclasses import fields, replace
from typing import Any

import pytest
from earlier_project import expected

from mlxops.config import LoraConfig
from mlxops.options import option, options_of, settings
from mlxops.training.decide import differences
from mlxops.training.fingerprint import ADDED, ALWAYS, complete, deciding_settings, fingerprint, uses_total


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


# runs of earlier versions --------------------------------------------------------------------------------------------


@settings
class LaterConfig(LoraConfig):
    """The settings of a version that has one more of those that decide the weights."""

    chat_arguments: dict[str, Any] = option({}, "what the chat template is told", role="weights", on_command_line=False)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADDED, "chat_arguments", {})


def of_later(**changed) -> dict:
    return deciding_settings(LaterConfig(**changed), model="m", data="d", target=1000)


@pytest.mark.parametrize("recorded", expected()["fingerprints"], ids=lambda each: ",".join(each["changed"]) or "none")
def test_a_fingerprint_is_the_one_that_an_earlier_version_computed(recorded):
    config = LoraConfig(**{"num_layers": 16, **recorded["changed"]})  # the default of that time, for any model
    decides = deciding_settings(config, model="m" * 64, data="d" * 64, target=1000)

    assert fingerprint(decides) == recorded["fingerprint"]


def test_a_setting_that_decides_the_weights_is_in_every_fingerprint_or_has_a_value_for_runs_before_it():
    names = {each.name for each in options_of(LoraConfig) if each.role == "weights"}

    assert names == ALWAYS | ADDED.keys()
    assert not ALWAYS & ADDED.keys()


def test_a_setting_that_is_added_later_is_in_the_fingerprint_only_where_it_is_not_as_before(later):
    assert fingerprint(of_later()) == fingerprint(settings_of())
    assert fingerprint(of_later(chat_arguments={"enable_thinking": False})) != fingerprint(settings_of())


def test_a_run_from_before_a_setting_differs_from_another_by_what_it_was_trained_with(later):
    changed = of_later(chat_arguments={"enable_thinking": False})

    assert differences(settings_of(), changed) == (("chat_arguments", {}, {"enable_thinking": False}),)
    assert differences(changed, of_later()) == (("chat_arguments", {"enable_thinking": False}, {}),)
    assert differences(settings_of(), of_later()) == ()


def test_the_settings_of_a_run_from_before_some_of_them_are_complete(later):
    stored = {"lora_rank": 4, "seed": 7}

    assert complete(stored) == {
        **{each.name: each.default for each in options_of(LoraConfig) if each.role not in ("weights", "command")},
        "chat_arguments": {},
        "chat_template_config": {},
        **stored,
    }
