"""`train.resume` continues a run with the settings that it stored, and a refusal names the command that works."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from known_runs import new_run, settings
from training_runs import copy_project, straight_project

from mlxops import registry
from mlxops.config import LoraConfig, ResumeConfig
from mlxops.errors import BadRequest
from mlxops.jobs.train import resume
from mlxops.options import options_of

Typed = Callable[[str], tuple[int, str, str]]
SETTINGS = (
    *("--model", "tiny", "--num-layers", "1", "--batch-size", "2", "--save-every", "4", "--val-batches", "0"),
    *("--learning-rate", "0.003", "--lora-dropout", "0.1"),
)
SHAPE = ("kind", "item", "choices", "at_least", "at_most", "above", "below", "also", "unless", "path")


def stored(**config: object) -> LoraConfig:
    """What resumes a run with this stored configuration, without any option."""
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron", config=config)
    return resume.settings_of(settings(), ResumeConfig(run="heron"))


def test_what_may_change_is_an_option_with_the_bounds_that_it_has_for_a_training() -> None:
    training = {option.name: option for option in options_of(LoraConfig)}
    here = {option.name: option for option in options_of(ResumeConfig)}

    assert set(resume.CHANGEABLE) <= here.keys()
    assert set(here) - {"run"} <= training.keys()
    for name in here.keys() - {"run"}:
        assert [getattr(here[name], each) for each in SHAPE] == [getattr(training[name], each) for each in SHAPE], name


def test_all_that_was_stored_is_given_again_but_for_notes_and_what_is_allowed_each_time() -> None:
    found = stored(learning_rate=3e-4, seed=9, lora_keys=["q"], note="n", tag=["t"], trust_remote_code=True, iters=70)

    expected = LoraConfig(model="models/tiny", learning_rate=3e-4, seed=9, lora_keys=["q"], name="heron", iters=100)
    assert found == expected


def test_what_the_command_changes_is_changed() -> None:
    base = stored(epochs=3, save_every=50)

    config = ResumeConfig(run="latest", iters=500, save_every=5, samples=0, detach=True)
    changed = resume.settings_of(settings(), config)

    assert base.epochs == 3
    assert changed == replace(base, epochs=None, iters=500, save_every=5, samples=0, detach=True)


def test_an_imported_run_is_answered_with_what_continues_it() -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron")
        db.connection.execute("UPDATE runs SET imported_from = 'theirs'")

    with pytest.raises(BadRequest, match="was imported") as raised:
        resume.settings_of(settings(), ResumeConfig(run="heron"))

    assert "inv run.import theirs" in str(raised.value.hint)


@pytest.mark.slow
def test_a_run_is_resumed_exactly_and_the_command_that_a_refusal_names_does_it(
    tmp_path: Path, tiny_model: Path, mlxops: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = straight_project(tiny_model, *SETTINGS, "--name", "run", "--iters", "13")
    first = straight_project(tiny_model, *SETTINGS, "--name", "run", "--iters", "8")
    monkeypatch.chdir(copy_project(first, tmp_path / "project"))

    refused = mlxops("lora --model tiny --name run --iters 13 --learning-rate 0.5")
    done = mlxops("train.resume run --preview --json")
    code, out, err = mlxops("train.resume run --iters 13 --samples 0 --json")

    assert refused[0] == 3
    assert "hint: `mlx-toolkit train.resume run --iters 13` resumes it with its own settings; another" in refused[2]
    assert (done[0], json.loads(done[1])["decision"]) == (0, "finished"), done[2]
    assert code == 0, err
    name = "adapters/run/0000013_adapters.safetensors"
    assert Path(name).read_bytes() == (straight / name).read_bytes()
    with registry.open_read_only(Path("runs.db")) as db:
        run = registry.find_run(db, "run")
        attempts = registry.attempts_of(db, run["id"])
    assert (run["config"]["model"], run["config"]["adapter_path"], attempts[-1]["start_kind"]) == (
        "tiny",
        None,
        "exact",
    )
    assert out
