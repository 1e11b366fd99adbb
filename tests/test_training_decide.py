"""What a command to train does, as the table of the design says it: a pure function of request and runs."""

from dataclasses import fields, replace

import pytest

from mlxops.config import LoraConfig
from mlxops.options import options_of
from mlxops.training.decide import (
    Candidate,
    Decision,
    Request,
    decide,
    deciding_settings,
    differences,
    fingerprint,
    uses_total,
)

SETTINGS = {"lora_rank": 8, "seed": 0}
RUN = Candidate(
    name="heron",
    folder="adapters/heron",
    fingerprint="same",
    settings=SETTINGS,
    iteration=40,
    target=100,
    closed=False,
)
FINISHED = replace(RUN, name="ibis", folder="adapters/ibis", iteration=100, closed=True)
OTHER = replace(RUN, name="crane", folder="adapters/crane", fingerprint="other", settings={"lora_rank": 4, "seed": 0})
ASKED = Request(fingerprint="same", settings=SETTINGS, target=100)


def outcome(request: Request, *candidates: Candidate) -> tuple[str, str | None, int]:
    decision = decide(request, candidates)
    return decision.kind, decision.run, decision.iteration


# folder or name given -----------------------------------------------------------------------------------------------

GIVEN = [{"name": "heron"}, {"folder": "adapters/heron"}, {"name": "heron", "folder": "adapters/heron"}]


@pytest.mark.parametrize("given", GIVEN)
def test_a_name_or_folder_that_is_not_there_is_a_new_run(given):
    assert outcome(replace(ASKED, **given), FINISHED, OTHER) == ("new", None, 0)


@pytest.mark.parametrize("given", GIVEN)
def test_a_name_or_folder_decides_for_its_run_even_where_a_newer_one_fits(given):
    newer = replace(RUN, name="newer", folder="adapters/newer", iteration=70)

    assert outcome(replace(ASKED, **given), newer, RUN) == ("resume", "heron", 40)


@pytest.mark.parametrize("given", GIVEN)
def test_the_run_there_is_finished_when_its_target_is_reached(given):
    assert outcome(replace(ASKED, **given), replace(RUN, iteration=100, closed=True)) == ("finished", "heron", 100)


@pytest.mark.parametrize("given", GIVEN)
def test_the_run_there_is_extended_by_a_higher_target(given):
    request = replace(ASKED, target=150, **given)

    assert outcome(request, replace(RUN, iteration=100, closed=True)) == ("extend", "heron", 100)


@pytest.mark.parametrize("given", [{"name": "crane"}, {"folder": "adapters/crane"}])
def test_other_settings_are_refused_with_each_difference_old_and_new(given):
    decision = decide(replace(ASKED, **given), [OTHER, RUN])

    assert (decision.kind, decision.differences) == ("refuse", (("lora_rank", 4, 8),))
    assert "'crane'" in decision.reason
    assert decision.hint


def test_a_longer_schedule_over_the_whole_training_is_refused_with_the_reason():
    there = replace(RUN, fingerprint="other", settings=SETTINGS | {"schedule_iterations": 100})
    request = replace(ASKED, name="heron", target=150, settings=SETTINGS | {"schedule_iterations": 150})

    decision = decide(request, [there])

    assert (decision.kind, decision.differences) == ("refuse", (("schedule_iterations", 100, 150),))
    assert "learning rate runs over the whole training" in decision.hint


def test_a_name_of_one_run_with_the_folder_of_another_is_refused():
    decision = decide(replace(ASKED, name="heron", folder="adapters/crane"), [RUN, OTHER])

    assert decision.kind == "refuse"
    assert "'adapters/heron'" in decision.reason


def test_a_new_name_for_the_folder_of_a_run_is_refused():
    decision = decide(replace(ASKED, name="stork", folder="adapters/heron"), [RUN])

    assert decision.kind == "refuse"
    assert "'heron', not of 'stork'" in decision.reason


def test_a_run_that_moves_to_another_folder_is_refused():
    assert decide(replace(ASKED, name="heron", folder="elsewhere"), [RUN]).kind == "refuse"


def test_a_folder_with_something_else_in_it_is_refused():
    decision = decide(replace(ASKED, folder="old", own_folder="old", occupied="holds an adapter"), [RUN])

    assert (decision.kind, decision.reason) == ("refuse", "'old' holds an adapter")
    assert decision.hint


def test_a_named_run_without_its_folder_starts_from_the_beginning_and_says_so():
    decision = decide(replace(ASKED, name="heron"), [replace(RUN, has_folder=False)])

    assert (decision.kind, decision.run, decision.iteration) == ("resume", "heron", 0)
    assert "is gone" in decision.reason


# neither given ------------------------------------------------------------------------------------------------------


def test_no_run_at_all_is_a_new_run():
    assert decide(ASKED, []) == Decision(kind="new", reason="no run of these settings is there")


def test_the_newest_unfinished_run_of_these_settings_goes_on():
    older = replace(RUN, name="older", iteration=90)

    assert outcome(ASKED, OTHER, RUN, older) == ("resume", "heron", 40)


def test_an_unfinished_run_goes_before_a_newer_finished_one():
    assert outcome(ASKED, FINISHED, RUN) == ("resume", "heron", 40)


def test_a_finished_run_of_these_settings_is_finished():
    assert outcome(ASKED, OTHER, FINISHED, replace(FINISHED, name="older")) == ("finished", "ibis", 100)


def test_a_finished_run_of_these_settings_is_extended_by_a_higher_target():
    assert outcome(replace(ASKED, target=150), FINISHED) == ("extend", "ibis", 100)


def test_an_extension_that_was_interrupted_goes_on():
    assert outcome(replace(ASKED, target=150), replace(RUN, iteration=120, target=150)) == ("resume", "heron", 120)


def test_an_extension_interrupted_before_its_first_checkpoint_goes_on_from_the_target_before():
    extended = replace(RUN, iteration=100, target=150, closed=True)

    assert outcome(replace(ASKED, target=150), extended) == ("resume", "heron", 100)


def test_a_run_that_was_stopped_at_its_target_before_it_closed_goes_on():
    assert outcome(ASKED, replace(RUN, iteration=100)) == ("resume", "heron", 100)


@pytest.mark.parametrize("there", [RUN, replace(RUN, iteration=100, closed=True)])
def test_a_target_below_what_is_done_is_finished_and_says_where_it_is(there):
    decision = decide(replace(ASKED, target=20), [there])

    assert decision.kind == "finished"
    assert f"already at iteration {there.iteration}" in decision.reason


def test_a_run_without_a_checkpoint_starts_from_the_beginning():
    decision = decide(ASKED, [replace(RUN, iteration=0)])

    assert (decision.kind, decision.iteration, decision.reason) == ("resume", 0, "goes on from the beginning")


def test_other_settings_are_a_new_run_that_names_the_most_similar_unfinished_one():
    far = replace(OTHER, name="far", settings={"lora_rank": 4, "seed": 7})

    decision = decide(ASKED, [far, OTHER, replace(FINISHED, fingerprint="other")])

    assert (decision.kind, decision.similar, decision.differences) == ("new", "crane", (("lora_rank", 4, 8),))


def test_a_finished_run_of_other_settings_is_not_called_similar():
    assert decide(ASKED, [replace(FINISHED, fingerprint="other")]).similar is None


def test_a_run_whose_folder_is_gone_is_told_and_a_new_one_starts():
    decision = decide(ASKED, [replace(RUN, has_folder=False)])

    assert (decision.kind, decision.run) == ("new", None)
    assert "heron (adapters/heron) is gone" in decision.reason


def test_a_run_with_its_folder_goes_before_a_newer_one_without():
    assert outcome(ASKED, replace(RUN, name="gone", has_folder=False), RUN) == ("resume", "heron", 40)


# --new --------------------------------------------------------------------------------------------------------------


def test_a_new_run_is_new_whatever_there_is():
    assert outcome(replace(ASKED, new=True), RUN, FINISHED) == ("new", None, 0)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("there", [RUN, replace(RUN, fingerprint="other")])
def test_a_new_run_in_an_occupied_place_is_refused(given, there):
    decision = decide(replace(ASKED, new=True, **given), [there])

    assert decision.kind == "refuse"
    assert decision.hint


def test_a_new_run_in_a_free_place_is_new():
    assert outcome(replace(ASKED, new=True, folder="elsewhere"), RUN) == ("new", None, 0)


# what decides the weights -------------------------------------------------------------------------------------------


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
    assert fingerprint({"seed": 0, "lora_rank": 8}) == fingerprint(SETTINGS)
    assert fingerprint(SETTINGS)[:16] == "6daa4571f4375e46"


def test_differences_name_what_only_one_side_has():
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == (("a", 1, None), ("b", 2, 3), ("c", None, 4))


def test_another_length_of_a_run_whose_learning_rate_runs_over_the_whole_is_refused_with_the_reason():
    whole = replace(FINISHED, settings={**SETTINGS, "schedule_iterations": 100})
    longer = replace(ASKED, fingerprint="longer", settings={**SETTINGS, "schedule_iterations": 150}, target=150)

    decision = decide(longer, [whole])

    assert (decision.kind, decision.differences) == ("refuse", (("schedule_iterations", 100, 150),))
    assert "learning rate runs over the whole training" in decision.hint
    assert decide(replace(longer, new=True), [whole]).kind == "new"


def test_a_name_whose_folder_is_another_runs_is_refused():
    moved = replace(RUN, folder="adapters/stork")

    assert decide(replace(ASKED, name="stork", own_folder="adapters/stork"), [moved]).kind == "refuse"
