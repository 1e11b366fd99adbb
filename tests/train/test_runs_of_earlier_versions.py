"""Runs outlive versions: a project that an earlier version made opens, shows the same, resumes and extends."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earlier_project import FIXTURES, OF_THE_MACHINE, expected, unpack, weights_sha256
from safetensors.numpy import load_file
from training_runs import attempts, contents, lora, result

from mlxops import data, registry
from mlxops.data import encoding
from mlxops.training import ways


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = unpack(tmp_path / "project")
    monkeypatch.chdir(made)
    return made


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project for tests that only read it, brought up to this version's schema."""
    made = unpack(tmp_path_factory.mktemp("earlier") / "project")
    registry.open_registry(made / "runs.db").close()
    return made


def test_it_opens_with_this_versions_schema_and_a_copy_is_kept_of_an_older_one(project, mlxops):
    before = schema(project / "runs.db")

    code, _, err = mlxops("runs")

    after = schema(project / "runs.db")
    copies = [schema(path) for path in (project / ".mlxops").glob("backups/*.db")]
    assert (code, err) == (0, "")
    assert copies == ([before] if after > before else [])


@pytest.mark.parametrize("command", expected()["said"])
def test_it_shows_the_same_as_the_version_that_made_it(opened, monkeypatch, mlxops, command):
    monkeypatch.chdir(opened)

    code, out, err = mlxops(command)

    assert (code, err) == (0, "")
    assert_holds(json.loads(out), expected()["said"][command], command)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "decision", "iteration"),
    [("unfinished", "resume", 8), ("finished", "finished", 6), ("extended", "extend", 6), ("child", "finished", 8)],
)
def test_the_command_of_its_time_falls_on_its_run(opened, monkeypatch, mlxops, options, decision, iteration):
    monkeypatch.chdir(opened)

    code, out, err = mlxops(shlex.join(["lora", *expected()["options"][options], "--preview", "--json"]))

    said = json.loads(out)
    assert (code, err) == (0, "")
    assert (said["decision"], said["iteration"], said["differences"]) == (decision, iteration, [])


def test_a_finished_run_stays_as_it_is(project, mlxops):
    folder = project / "adapters" / "finished"
    before = contents(folder)

    code, _, _ = mlxops(shlex.join(["lora", *expected()["options"]["finished"]]))

    assert code == 0
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("unfinished", "unfinished"), ("finished", "extended")])
def test_its_runs_are_trained_on_as_the_version_that_made_them_would_have(project, name, options):
    ended = lora(project, *expected()["options"][options])

    assert ended.code == 0, ended.said
    *_, then, now = attempts(project, name)
    changed = {each for each in OF_THE_MACHINE if then["environment"][each] != now["environment"][each]}
    assert named(now) == changed
    assert_trained(project, name, is_exact=not changed)


ADAFACTOR = (
    *("--name", "adafactor", "--model", "tiny", "--num-layers", "1", "--lora-rank", "1", "--batch-size", "2"),
    *("--val-batches", "0", "--save-every", "100", "--iters", "8", "--learning-rate", "0.003"),
    *("--optimizer", "adafactor"),
)
"""A run that a SIGTERM ended at iteration 4, and what came of it in the version that began it."""


@pytest.mark.slow
def test_adafactor_goes_on_by_the_size_of_update_that_its_run_began_with(project):
    stored, folder = FIXTURES / "adafactor-7df9bec", project / "adapters" / "adafactor"
    shutil.copytree(stored, folder, ignore=shutil.ignore_patterns("expected*"))

    ended = lora(project, *ADAFACTOR)

    assert ended.code == 0, ended.said
    (attempt,) = attempts(project, "adafactor")
    changed = named(attempt)
    was, found = (load_file(each) for each in (stored / "expected.safetensors", folder / "adapters.safetensors"))
    assert attempt["from_iteration"] == 4
    assert changed <= set(OF_THE_MACHINE)
    # another machine rounds otherwise; by the size that a new run has, the numbers would be hundreds of times larger
    assert_close = partial(np.testing.assert_allclose, rtol=0.1 if changed else 0, atol=1e-6 if changed else 0)
    assert found.keys() == was.keys()
    for name, each in was.items():
        assert_close(found[name], each)


def compute_the_loss_otherwise() -> None:
    """Have this process compute the loss by the next version of its way."""
    ways.WAYS["loss"]["every position"] += 1


@pytest.mark.slow
def test_a_run_is_resumed_inexactly_where_its_way_of_computing_a_step_has_another_version(project):
    options = expected()["options"]["unfinished"]

    lora(project, *options, "--iters", "11", first=compute_the_loss_otherwise)
    lora(project, *options, first=compute_the_loss_otherwise)
    lora(project, *options, "--iters", "15")

    *_, then, changed, same, back = attempts(project, "unfinished")
    machine = {each for each in OF_THE_MACHINE if then["environment"][each] != changed["environment"][each]}
    assert named(changed) == {"loss", *machine}
    assert "loss: every position, version 1 → every position, version 2" in changed["start_note"]
    assert named(same) == set()
    assert named(back) == {"loss"}


# this version masks rows otherwise ----------------------------------------------------------------------------------


@pytest.fixture
def other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version of the rules, which gives these rows what they had."""
    monkeypatch.setattr(data, "MASKING_RULES", data.MASKING_RULES + 1)


@pytest.fixture
def other_masking(monkeypatch: pytest.MonkeyPatch, other_rules: None) -> None:
    """A newer version of the rules, by which the last token of a turn is not trained."""
    before = encoding._spans
    monkeypatch.setattr(encoding, "_spans", lambda *given: tuple((a, b - 1) for a, b in before(*given)))


@pytest.mark.slow
@pytest.mark.usefixtures("other_masking")
@pytest.mark.parametrize("name", ["unfinished", "finished"])
def test_a_run_whose_rows_this_version_masks_otherwise_is_refused_and_left_as_it_is(project, mlxops, name):
    options = expected()["options"][name]
    before = contents(project / "adapters" / name)

    named_code, _, named_err = mlxops(shlex.join(["lora", *options]))
    code, _, err = mlxops(shlex.join(["lora", *without_name(options)]))

    assert (named_code, code) == (3, 3)
    for said in (named_err, err):
        assert f"the run '{name}' cannot be resumed: this version makes other rows of its data" in said
        assert f"`--branch --from {name}` continues from its weights" in said
    assert contents(project / "adapters" / name) == before


@pytest.mark.usefixtures("other_masking")
def test_a_branch_continues_from_its_weights(opened, monkeypatch, mlxops):
    monkeypatch.chdir(opened)
    options = without_name(expected()["options"]["unfinished"])

    code, out, err = mlxops(shlex.join(["lora", *options, "--branch", "--from", "unfinished", "--preview", "--json"]))

    said = json.loads(out)
    assert (code, err) == (0, "")
    assert (said["decision"], said["iteration"], said["target"]) == ("new", 8, 13)


@pytest.mark.slow
@pytest.mark.usefixtures("other_rules")
def test_a_run_whose_rows_stay_the_same_under_other_rules_is_resumed(opened, monkeypatch, mlxops):
    monkeypatch.chdir(opened)

    _, out, _ = mlxops(shlex.join(["lora", *expected()["options"]["unfinished"], "--preview", "--json"]))

    assert json.loads(out)["decision"] == "resume"


def without_name(options: list[str]) -> list[str]:
    place = options.index("--name")
    return [*options[:place], *options[place + 2 :]]


def named(attempt: dict[str, Any]) -> set[str]:
    """What an attempt gives as the reasons for which it is not exact."""
    assert attempt["start_kind"] in ("exact", "inexact")
    return {each.split(":")[0] for each in (attempt["start_note"] or "").split("; ") if each}


def assert_trained(project: Path, name: str, *, is_exact: bool) -> None:
    """Hold that a run came out as recorded: to the last bit on a machine like the one it was begun on."""
    was, found = expected()["trained"][name], result(project, name)
    if is_exact:
        assert found["run"] == was["run"]
        for row in found["checkpoints"]:
            file = project / "adapters" / name / f"{row['iteration']:07d}_adapters.safetensors"
            row["adapter_sha256"] = weights_sha256(file)
        assert found["checkpoints"] == was["checkpoints"]
        metrics = {f"{metric} at {iteration}": value for (metric, iteration), value in found["metrics"].items()}
        assert metrics == was["metrics"]
    else:
        about = pytest.approx(was["run"]["best_validation_loss"], rel=0.01)
        assert found["run"] == {**was["run"], "best_validation_loss": about}


def assert_holds(now: Any, then: Any, where: str) -> None:
    """Hold that all that was said then is said now; there may be more."""
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in now, f"{where}: no {name}"
            assert_holds(now[name], value, f"{where}, {name}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for place, (one, other) in enumerate(zip(now, then, strict=True)):
            assert_holds(one, other, f"{where}, {place}")
    else:
        assert now == then, where


def schema(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
