"""Options: what a field takes, and the one check for the command line, recipes and invoke.yaml."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import FrozenInstanceError, asdict, dataclass, replace
from typing import Any, Literal

import pytest

from mlxops import config
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.options import Option, option, options_of, resolve


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    name: str = option(None, "what to take", positional=True)
    rate: float = option(0.5, "rate", above=0, at_most=1)
    count: int = option(4, "count", at_least=-1, unless=[0])
    half: int = option(2, "even", at_least=2, also=[-1])
    color: Literal["red", "green"] = option("red", "color")
    words: list[str] = option([], "words")
    whole: list[str] = option([], "words with commas", commas=False)
    numbers: list[float] = option([], "numbers", on_command_line=False)
    sizes: list[int] = option([1], "sizes", at_least=1)
    other: int | None = option(None, "instead of count", instead_of="count")


SAMPLE: dict[str, Option] = {each.name: each for each in options_of(SampleConfig)}
COMMANDS = [each for name, each in vars(config).items() if inspect.isclass(each) and name.endswith("Config")]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "1e-1", 0.1),
        ("rate", "1", 1.0),
        ("count", "1_000", 1000),
        ("count", "-1", -1),
        ("half", "-1", -1),
        ("color", "green", "green"),
        ("words", "a, b,", ["a", "b"]),
        ("whole", "a, b", ["a, b"]),
        ("words", "[a, b]", ["a", "b"]),
        ("words", """ ["a, b", 'c d',] """, ["a, b", "c d"]),
        ("words", "[12, it's]", ["12", "it's"]),
        ("words", "['mlp[0]']", ["mlp[0]"]),
        ("words", "mlp[0],mlp[1]", ["mlp[0]", "mlp[1]"]),
        ("words", "[]", []),
        ("whole", "[a, b]", ["[a, b]"]),
        ("numbers", "[1e-4, 8]", [1e-4, 8.0]),
        ("numbers", "1e-4, 8", [1e-4, 8.0]),
        ("numbers", "[ ]", []),
        ("sizes", "[1, 1_000]", [1, 1000]),
        ("name", " Zoë 'x' ", " Zoë 'x' "),
    ],
)
def test_a_text_becomes_the_value_it_stands_for(name: str, text: str, value: object) -> None:
    parsed = SAMPLE[name].parse(text)

    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("count", "abc", "--count takes a whole number, not 'abc'"),
        ("count", "1.5", "--count takes a whole number, not '1.5'"),
        ("count", "0", "--count takes a whole number at least -1 other than 0, not 0"),
        ("half", "1", "--half takes a whole number at least 2, or -1, not 1"),
        ("rate", "nan", "--rate takes a number above 0 and at most 1, not nan"),
        ("rate", "inf", "--rate takes a number above 0 and at most 1, not inf"),
        ("rate", "2", "--rate takes a number above 0 and at most 1, not 2.0"),
        ("color", "blue", "--color takes one of red, green, not 'blue'"),
        ("name", " ", "--name takes a text, not ' '"),
        ("sizes", "[1, x]", "--sizes takes a list, each a whole number at least 1, not 'x'"),
        ("sizes", "[]", "--sizes takes a list, each a whole number at least 1, not nothing"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, text: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as raised:
        SAMPLE[name].parse(text)

    assert raised.value.message == sentence


@pytest.mark.parametrize("name", ["words", "numbers", "sizes"])
@pytest.mark.parametrize("text", ["[1e-4,", "[1, 2", "1, 2]", "[[1], 2]", "[1], [2]", "['1, 2]", "['1' 2]", "[", "]"])
def test_brackets_that_do_not_match_are_told_how_a_list_is_typed(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        SAMPLE[name].parse(text)

    assert raised.value.message == f"{SAMPLE[name].flag} takes a list, not {text!r}"
    assert raised.value.hint
    assert "a list is 1,2 or, quoted for the shell, '[1, 2]'" in raised.value.hint


def test_a_choice_suggests_the_nearest() -> None:
    with pytest.raises(BadRequest) as raised:
        SAMPLE["color"].parse("gren")

    assert raised.value.hint == "did you mean 'green'?"


def test_a_number_that_yaml_reads_as_a_text_is_a_number() -> None:
    assert SAMPLE["rate"].check("1e-5", "invoke.yaml: rate") == 1e-5


@pytest.mark.parametrize("value", [True, "yes", [1], None])
def test_a_value_of_another_type_is_refused_wherever_it_stood(value: Any) -> None:
    with pytest.raises(BadRequest, match=r"^recipe\.yaml: count takes a whole number"):
        resolve(SampleConfig, [("recipe.yaml", {"name": "n", "count": value})])


def test_the_strongest_layer_counts() -> None:
    layers = [("invoke.yaml", {"rate": 0.1, "count": 1}), ("r.yaml", {"count": 2}), ("", {"name": "n", "count": 3})]

    settled = resolve(SampleConfig, layers)

    assert settled == SampleConfig(name="n", rate=0.1, count=3)


def test_an_unknown_setting_names_its_place_and_the_nearest() -> None:
    with pytest.raises(BadRequest, match=r"^r\.yaml: 'colour' is no setting here$") as raised:
        resolve(SampleConfig, [("r.yaml", {"name": "n", "colour": "red"})])

    assert raised.value.hint == "did you mean 'color'?"


def test_an_option_instead_of_another_is_refused_beside_it() -> None:
    with pytest.raises(BadRequest, match="--other and --count say the same thing"):
        resolve(SampleConfig, [("", {"name": "n", "count": 1, "other": 2})])


def test_an_option_instead_of_another_gives_way_to_a_stronger_one() -> None:
    settled = resolve(SampleConfig, [("r.yaml", {"name": "n", "other": 2}), ("", {"count": 3})])

    assert (settled.count, settled.other) == (3, None)


def test_only_a_positional_without_a_default_is_required() -> None:
    assert [each.name for each in SAMPLE.values() if each.required] == ["name"]


# the commands' own ---------------------------------------------------------------------------------------------------


def test_every_setting_of_a_run_has_a_role() -> None:
    assert [each.name for each in options_of(LoraConfig) if each.role is None] == []


def test_a_setting_that_is_not_typed_is_still_explained_and_of_a_role() -> None:
    hidden = [each for each in options_of(LoraConfig) if not each.on_command_line]

    assert all(each.help and each.role for each in hidden)


def test_help_texts_are_lower_case_without_a_full_stop() -> None:
    texts = [each.help for command in COMMANDS for each in options_of(command)]

    assert [text for text in texts if not text or text.endswith(".") or text.split()[0].istitle()] == []


def test_no_two_options_share_a_flag() -> None:
    flags = Counter(
        (command.__name__, name)
        for command in COMMANDS
        for each in options_of(command)
        for name in (each.flag, *(f"--{alias}" for alias in each.aliases))
    )

    assert [flag for flag, count in flags.items() if count > 1] == []


def test_every_default_passes_its_own_check() -> None:
    optional = [each for command in COMMANDS for each in options_of(command) if not each.positional]

    assert [each for each in optional if each.check(each.default, each.name) != each.default] == []


@pytest.mark.parametrize("each", COMMANDS, ids=lambda each: each.__name__)
def test_settings_are_a_frozen_dataclass_that_takes_its_fields_by_name(each: type) -> None:
    needed = {option.name: "x" for option in options_of(each) if option.required}
    made = each(**needed)

    assert made == each(**asdict(made)) == replace(made)
    assert made != object()
    assert all(f"{name}={value!r}" in repr(made) for name, value in asdict(made).items())
    with pytest.raises(FrozenInstanceError):
        made.json = True
    with pytest.raises(TypeError, match="'wing'"):
        each(**needed, wing=1)
    if needed:
        with pytest.raises(TypeError, match="needs"):
            each()


def test_lists_of_two_settings_are_not_one_list() -> None:
    LoraConfig().tag.append("night")

    assert LoraConfig().tag == []
    assert LoraConfig(seed=1) != LoraConfig()
