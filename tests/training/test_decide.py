"""What a command to train does, as the table of the design says it: a pure function of request and runs."""

from dataclasses import replace

import pytest

from mlxops.training.decide import (
    Candidate,
    Decision,
    Request,
    Rows,
    decide,
    differences,
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
    assert decide(ASKED, []) == Decision(kind="new", reason="no run with these settings exists")


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

    assert (decision.kind, decision.iteration, decision.reason) == ("resume", 0, "resumes from the beginning")


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


# the same data, other rows -------------------------------------------------------------------------------------------

BEFORE = replace(RUN, fingerprint="before", settings={**SETTINGS, "data_identity": "before"}, rows=Rows(data="data"))
SINCE = replace(BEFORE, rows=Rows(data="data", content="words", masking_rules=1))
TODAY = replace(
    ASKED, settings={**SETTINGS, "data_identity": "today"}, rows=Rows(data="data", content="words", masking_rules=2)
)
SAME_RULES = replace(TODAY, rows=Rows(data="data", content="words", masking_rules=1))
OTHER_WORDS = replace(TODAY, rows=Rows(data="data", content="other words", masking_rules=2))


@pytest.mark.parametrize("given", [{}, *GIVEN])
@pytest.mark.parametrize(
    ("there", "why"),
    [
        (BEFORE, "other rows of its data (masking rules 2, not 1), or its data has changed since"),
        (SINCE, "other rows of its data (masking rules 2, not 1)"),
        (replace(SINCE, rows=replace(SINCE.rows, data="moved")), "other rows of its data (masking rules 2, not 1)"),
    ],
)
def test_a_run_whose_rows_this_version_masks_otherwise_is_refused_with_that_reason(given, there, why):
    decision = decide(replace(TODAY, **given), [there, OTHER])

    assert decision.kind == "refuse"
    assert decision.reason == f"the run 'heron' cannot be resumed: this version makes {why}"
    assert "`--branch --from heron` continues from its weights" in decision.hint


def test_a_run_whose_data_becomes_other_tokens_by_the_same_rules_is_refused_with_that_reason():
    decision = decide(SAME_RULES, [SINCE])

    assert decision.kind == "refuse"
    assert "its data now becomes other tokens" in decision.reason


@pytest.mark.parametrize(
    ("request_", "there"),
    [
        pytest.param(OTHER_WORDS, SINCE, id="other words"),
        pytest.param(SAME_RULES, BEFORE, id="the same rules, the words not known"),
        pytest.param(replace(TODAY, rows=replace(TODAY.rows, data="other")), BEFORE, id="another path"),
        pytest.param(TODAY, replace(SINCE, settings={**SINCE.settings, "seed": 1}), id="another setting as well"),
        pytest.param(replace(TODAY, new=True), SINCE, id="a new run asked for"),
        pytest.param(TODAY, replace(SINCE, has_folder=False), id="the folder is gone"),
    ],
)
def test_other_data_or_another_setting_is_a_new_run(request_, there):
    assert outcome(request_, there) == ("new", None, 0)


def test_a_run_that_was_left_behind_knowingly_stops_nobody():
    newer = replace(SINCE, name="newer", rows=Rows(data="data", content="words before", masking_rules=2))

    assert outcome(TODAY, newer, BEFORE) == ("new", None, 0)
    assert decide(TODAY, [BEFORE, newer]).kind == "refuse"


def test_a_run_with_the_rows_of_today_is_resumed_whatever_an_older_one_has():
    today = replace(SINCE, name="today", fingerprint=TODAY.fingerprint, settings=TODAY.settings)

    assert outcome(TODAY, BEFORE, today) == ("resume", "today", 40)
