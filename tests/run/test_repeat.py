"""The command that repeats a run: it names what differs from the defaults, and works when it is typed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import training_runs
from known_runs import new_run, settings

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.jobs import commands
from mlxops.jobs.run import show
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Typed = Callable[[str], tuple[int, str, str]]
DEFAULTS = asdict(LoraConfig())


def here() -> Project:
    return settings().project


def command(defaults: dict[str, Any] = DEFAULTS, **config: Any) -> str:
    row = {"model": "models/tiny", "data": "data", "config": asdict(LoraConfig(**config))}
    return commands.again(here(), row, defaults)


@pytest.mark.parametrize(
    ("config", "typed"),
    [
        ({}, ""),
        ({"iters": 20, "learning_rate": 3e-4, "seed": 7}, " --iters 20 --learning-rate 0.0003 --seed 7"),
        ({"num_layers": -1}, " --num-layers -1"),
        ({"epochs": 3}, " --epochs 3"),
        ({"mask_prompt": False, "grad_checkpoint": True}, " --no-mask-prompt --grad-checkpoint"),
        ({"lora_keys": ["self_attn.q_proj", "mlp.up_proj"]}, " --lora-keys self_attn.q_proj,mlp.up_proj"),
        ({"name": "heron", "note": "n", "tag": ["t"], "adapter_path": "here", "json": True}, ""),
        ({"warmup_init": 1e-6}, " --warmup-init 1e-06"),
        ({"optimizer_config": {"adamw": {"eps": 1e-6}}}, """ --optimizer-config '{"adamw": {"eps": 1e-06}}'"""),
        ({"lora_keys": ["a,b"]}, """ --config <(printf %s '{"lora_keys": ["a,b"]}')"""),
    ],
)
def test_it_names_the_settings_that_differ_and_not_where_the_run_stood(config: dict[str, Any], typed: str) -> None:
    assert command(**config) == f"inv lora --new --ignore-invoke-yaml --model models/tiny{typed}"


def test_paths_are_quoted_for_the_shell() -> None:
    row = {"model": "models/my model", "data": "it's/data", "config": asdict(LoraConfig())}

    assert shlex.split(commands.again(here(), row, DEFAULTS)) == [
        *("inv", "lora", "--new", "--ignore-invoke-yaml", "--model", "models/my model", "--data", "it's/data"),
    ]


def test_a_path_that_means_another_place_in_this_folder_is_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path.cwd()
    for folder in (root / "data", root / "sub" / "data", root / "models" / "tiny"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(root / "sub")
    project = Project(root=root, cwd=root / "sub", registry_path=root / "runs.db")
    row = {"name": "heron", "model": "models/tiny", "data": "data", "config": asdict(LoraConfig())}
    rest = dict.fromkeys(("status", "fingerprint", "model_identity", "data_identity", "adapter_path"), "")
    run = ResumableRun(id=1, iteration=1, target_iterations=2, **row, **rest)

    typed = commands.again(project, row, DEFAULTS)
    going_on, _ = commands.going_on(settings(), project, run, folder="f", target=5)

    assert shlex.split(typed)[4:] == ["--model", "models/tiny", "--data", str(root / "data")]
    assert shlex.split(going_on)[4:8] == ["--model", "models/tiny", "--data", str(root / "data")]


def test_a_setting_that_cannot_be_typed_off_goes_in_as_a_recipe() -> None:
    of_a_parent = DEFAULTS | {"learning_rate": 1e-3, "grad_checkpoint": True}

    assert command(of_a_parent) == (
        "inv lora --new --ignore-invoke-yaml --model models/tiny --learning-rate 1e-05"
        " --config <(printf %s '{\"grad_checkpoint\": false}')"
    )


def test_a_run_recorded_before_a_setting_existed_is_repeated_without_it() -> None:
    row = {"model": "models/tiny", "data": "data", "config": {"iters": 5}}

    assert commands.again(here(), row, DEFAULTS) == "inv lora --new --ignore-invoke-yaml --model models/tiny --iters 5"


def test_the_page_of_a_run_has_the_command_for_the_program_in_use_whatever_invoke_yaml_says(mlxops: Typed) -> None:
    Path("invoke.yaml").write_text("mlxops:\n  lora:\n    iters: 50\n")
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron", config={"iters": 50, "seed": 3})

    assert mlxops("run.show heron")[1].endswith(
        "to train it once more\nmlx-toolkit lora --new --ignore-invoke-yaml --model models/tiny --iters 50 --seed 3\n"
    )


def test_the_page_of_a_run_has_its_evaluations_and_answers(mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        run = new_run(db, "heron")
        shared = {"model": "models/tiny", "data": "data/test.jsonl", "data_sha256": "x", "config": {}}
        base = registry.record_evaluation(
            db,
            run_id=None,
            adapter_path=None,
            kind="test",
            answers=[registry.Answer(row=1, prompt="What?", expected="That.", answer="No idea.")],
            **shared,
        )
        evaluation = registry.record_evaluation(
            db,
            run_id=run.id,
            adapter_path="adapters/heron",
            base_evaluation_id=base,
            kind="test",
            answers=[registry.Answer(row=1, prompt="What?", expected="That.", answer="That\nit is.")],
            **shared,
        )
        with db.transaction() as connection:
            scores = [(base, "perplexity", 9.5, 0.5), (evaluation, "perplexity", 4.25, 0.125)]
            connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?)", scores)

    shown = mlxops("run.show heron")[1]

    assert ": test, 1 row of data/test.jsonl\n  perplexity 4.250 ± 0.125, base model 9.500\n" in shown
    assert "     asked What?\n  expected That.\nbase model No idea.\n  answered That\\nit is.\n" in shown


def test_the_page_and_the_report_of_a_run_have_the_verdicts_on_it(mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        run = new_run(db, "heron")
        for verdict, run_id, note in (("good", run.id, None), ("bad", run.id, "too <long>"), ("bad", None, "not ours")):
            registry.record_verdict(
                db,
                verdict=verdict,
                run_id=run_id,
                iteration=None,
                model="models/tiny",
                adapter_path=None,
                messages=[],
                prompt="Who?",
                answer=f"A {verdict}\none.",
                config={},
                note=note,
            )

    shown = mlxops("run.show heron")[1]
    code, _, err = mlxops("run.report heron --output heron.html")
    page = Path("heron.html").read_text()

    assert "\nverdicts (1 good, 1 bad)\n      good Who? → A good\\none. (" in shown
    assert "\n       bad Who? → A bad\\none. (" in shown
    assert ": too <long>)\n" in shown
    assert [each["note"] for each in json.loads(mlxops("run.show heron --json")[1])["verdicts"]] == [None, "too <long>"]
    assert (code, "Verdicts" in page, "too &lt;long&gt;" in page) == (0, True, True), err
    assert "not ours" not in shown + page


def test_a_run_that_began_with_other_weights_begins_with_them_again() -> None:
    origin = {"kind": "branch", "iteration": 40, "folder": "adapters/heron", "file": "f", "adapter_sha256": "a"}
    places = {"model": "m", "data": ""}
    settings_of_branch = asdict(LoraConfig(branch=True, iters=50)) | {"origin": {**origin, "run": "heron"}}
    branch = {**places, "config": settings_of_branch}
    adopted = {**places, "config": asdict(LoraConfig(adopt="x")) | {"origin": {**origin, "kind": "warm"}}}

    assert commands.again(here(), branch, DEFAULTS) == (
        "inv lora --new --ignore-invoke-yaml --branch --branch-from heron:40 --model m --iters 50"
    )
    assert (
        commands.again(here(), adopted, DEFAULTS)
        == "inv lora --new --ignore-invoke-yaml --adopt adapters/heron --model m"
    )


@pytest.mark.slow
def test_the_command_of_a_branch_makes_its_twin(tmp_path: Path, tiny_model: Path) -> None:
    project = training_runs.make_project(tmp_path, tiny_model)
    parent = training_runs.lora(project, *training_runs.RUN, "--iters", "6", "--save-every", "3")
    # the parent's learning rate is another, and this one mlxops's own
    child = ("--name", "child", "--branch", "--from", "run:3", "--learning-rate", "1e-5", "--iters", "6")
    first = training_runs.lora(project, *training_runs.RUN, *child)
    there = Invocation(project=Project.at(project), command="inv run.show")

    typed = shlex.split(show.run(there, "child").command)
    second = training_runs.lora(project, *typed[2:])

    with registry.open_read_only(project / "runs.db") as db:
        newest, oldest, _ = registry.list_runs(db)
        curves = [registry.loss_curve(db, row["id"]) for row in (oldest, newest)]
    assert (parent.code, first.code, second.code) == (0, 0, 0), second.said
    assert (newest["parent"], newest["fingerprint"]) == ("run", oldest["fingerprint"])
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_the_command_trains_the_same_in_another_project(tmp_path: Path, tiny_model: Path, programs: Path) -> None:
    first, second = (training_runs.make_project(tmp_path / name, tiny_model) for name in ("one", "prö j'x"))
    for project in (first, second):
        (project / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    (first / "invoke.yaml").write_text("mlxops:\n  lora:\n    lora_rank: 4\n    learning_rate: 1e-3\n")
    (second / "invoke.yaml").write_text(
        "mlxops:\n  lora:\n    lora_scale: 3.0\n    seed: 7\n    grad_checkpoint: true\n    config: none.yaml\n"
    )
    (first / "recipe.yaml").write_text("optimizer_config: {adamw: {weight_decay: 0.2}}\nwarmup_init: 1e-6\n")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def type_in(folder: Path, line: str) -> None:
        typed = ["bash", "-c", line]
        ended = subprocess.run(typed, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    type_in(first, shlex.join(["inv", "lora", *RECIPE_RUN]))
    there = Invocation(project=Project.at(first.resolve()), command="inv run.show run")
    type_in(second / "data", str(show.run(there, "run").command))

    twins = [_twin(project) for project in (first, second)]
    assert twins[0] == twins[1]
    assert len(twins[0][1]) > 2


RECIPE_RUN = (
    *(
        "--model",
        "tiny",
        "--name",
        "run",
        "--iters",
        "8",
        "--num-layers",
        "1",
        "--batch-size",
        "2",
        "--save-every",
        "4",
    ),
    *("--steps-per-report", "3", "--config", "recipe.yaml", "--optimizer", "adamw", "--warmup", "4"),
)


def _twin(project: Path) -> tuple[str, list[registry.LossPoint], bytes]:
    """The fingerprint, the losses and the finished adapter of a project's only run."""
    with registry.open_read_only(project / "runs.db") as db:
        (run,) = registry.list_runs(db)
        curve = registry.loss_curve(db, run["id"])
    return run["fingerprint"], curve, (project / run["adapter_path"] / "adapters.safetensors").read_bytes()
