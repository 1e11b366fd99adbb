"""What a command that branches decides, and which settings it takes from the run that it leaves; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from known_runs import new_run

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.errors import NotFound
from mlxops.jobs.train import branch
from mlxops.options import options_of, resolve
from mlxops.projects.project import Project
from mlxops.training.decide import Candidate, Request, decide
from mlxops.training.origin import Origin, origin_of, without_origin

# deciding -----------------------------------------------------------------------------------------------------------

ORIGIN = Origin(kind="branch", iteration=8, folder="adapters/run", file="f", adapter_sha256="a", run="run", note="n")
ASKED = Request(fingerprint="child", settings={"seed": 7, **ORIGIN.settings}, target=20, origin=ORIGIN)
RUN = Candidate(
    name="run", folder="adapters/run", fingerprint="run", settings={"seed": 0}, iteration=13, target=13, closed=True
)


def test_a_branch_is_a_new_run_that_begins_at_its_origin() -> None:
    decision = decide(ASKED, [RUN])

    assert (decision.kind, decision.iteration, decision.reason, decision.similar) == ("new", 8, "a branch", None)


def test_a_child_without_a_checkpoint_begins_at_its_origin_again() -> None:
    child = replace(RUN, name="child", folder="adapters/child", fingerprint="child", iteration=0, closed=False)

    decision = decide(ASKED, [child, RUN])

    assert (decision.kind, decision.run, decision.iteration) == ("resume", "child", 8)


def test_an_origin_is_what_a_runs_settings_keep_of_it() -> None:
    assert origin_of({"origin": ORIGIN.to_config()}) == ORIGIN
    assert origin_of({"origin": None}) is None
    assert without_origin(ASKED.settings) == {"seed": 7}


# what a child takes from its parent ---------------------------------------------------------------------------------


def inherited(text: str, usual: dict[str, Any] | None = None, **parent: Any) -> LoraConfig:
    """The settings of a command that branches from a run with this configuration, in the current folder."""
    with registry.open_registry(Path("runs.db")) as db:
        new_run(db, "heron", config=parent)
    options = {option.name: option for option in options_of(LoraConfig)}
    words = {name: options[name].parse(value) for name, value in (each.split("=") for each in text.split())}
    config = resolve(LoraConfig, [("invoke.yaml", usual or {}), ("", {"branch": True, **words})], usual=1)
    return branch.inherit(Project.at(Path.cwd()), config)


def test_a_branch_takes_what_is_not_given_from_the_run_that_it_leaves() -> None:
    parent = {"learning_rate": 3e-4, "lora_rank": 4, "save_every": 7, "iters": 70, "name": "heron", "note": "n"}

    found = inherited("branch_from=heron:20 lora_dropout=0.1", {"learning_rate": 1e-4, "seed": 3}, **parent)

    assert (found.model, found.data) == ("models/tiny", "data")
    assert (found.learning_rate, found.lora_rank, found.save_every, found.iters) == (3e-4, 4, 7, 70)
    assert (found.lora_dropout, found.seed, found.name, found.note) == (0.1, 0, None, None)


def test_iterations_that_are_given_replace_the_epochs_of_the_run_that_is_left() -> None:
    found = inherited("branch_from=heron iters=30", epochs=3)

    assert (found.iters, found.epochs) == (30, None)


def test_a_branch_from_no_named_run_takes_nothing_and_an_unknown_run_is_not_found() -> None:
    assert inherited("learning_rate=1e-6", lora_rank=4).lora_rank == 8
    with pytest.raises(NotFound, match="no run 'herom'"):
        branch.inherit(Project.at(Path.cwd()), LoraConfig(branch=True, branch_from="herom:20"))
