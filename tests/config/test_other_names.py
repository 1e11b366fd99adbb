"""The names that other programs have for our options lead to options that are there."""

import pytest

from mlxops.config import LoraConfig
from mlxops.config.other_names import OTHER_NAMES, meant
from mlxops.options import options_of

OPTIONS = {option.flag: option for option in options_of(LoraConfig) if option.on_command_line}
FLAGS = {
    *OPTIONS,
    *(f"--{alias}" for option in OPTIONS.values() for alias in option.aliases),
    *(f"--no-{flag.removeprefix('--')}" for flag, option in OPTIONS.items() if option.default is True),
}


def test_every_name_leads_to_an_option_that_takes_the_value():
    values = {name: other for name, other in OTHER_NAMES.items() if other.value is not None}

    # an option comes before another name, whose line would never be read
    assert [name for name in OTHER_NAMES if f"--{name}" in FLAGS] == []
    assert [name for name, other in OTHER_NAMES.items() if other.option not in FLAGS] == []
    assert [name for name, other in values.items() if OPTIONS[other.option].parse(other.value) != other.value] == []
    assert [name for name, other in OTHER_NAMES.items() if other.option not in meant(f"--{name}", FLAGS)] == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("--lr", "`--learning-rate` is the option for that"),
        ("--LR=1e-4", "`--learning-rate` is the option for that"),
        ("--learning_rate", "did you mean `--learning-rate`?"),
        ("--per_device_train_batch_size", "`--batch-size` is the option for that"),
        ("--bf16", "`--dtype bfloat16` is the option for that"),
        ("--zzz", None),
    ],
)
def test_a_name_is_answered_in_any_spelling(typed, hint):
    assert meant(typed, FLAGS) == hint


def test_alpha_is_answered_with_the_formula():
    assert "scale = alpha / rank" in meant("--lora-alpha", FLAGS)


def test_a_task_without_the_option_gets_no_answer():
    assert meant("--lr", ["--json", "--run"]) is None
