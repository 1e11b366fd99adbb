"""`init` makes a whole project or nothing; its recipes train, and the scripts of the advanced template work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import ROOT
from short_rows import shorten_rows

from mlxops.models.tiny import make_tiny
from mlxops.projects import templates
from mlxops.tasks import namespace

RECIPES = sorted(file.stem for file in (ROOT / "templates" / "recipes").glob("*.yaml"))
SCRIPTS = ["scripts/evaluate.py", "scripts/fine_tune.py", "scripts/query.py"]


def test_a_project_has_settings_data_recipes_and_git(mlxops) -> None:
    code, out, _ = mlxops("init 'my project' --json")

    made = json.loads(out)
    folder = Path("my project")
    assert (code, made["folder"], made["has_git"]) == (0, str(folder.resolve()), shutil.which("git") is not None)
    assert made["next"][0] == "cd 'my project'"
    assert made["files"] == sorted(
        [".gitignore", "README.md", "invoke.yaml", "tasks.py"]
        + [f"data/{name}.jsonl" for name in ("train", "valid", "test")]
        + [f"recipes/{name}.yaml" for name in RECIPES]
    )
    assert all((folder / name).is_file() for name in made["files"])
    assert (folder / "README.md").read_text().startswith("# my project\n")
    assert yaml.safe_load((folder / "invoke.yaml").read_text())["mlxops"]["lora"]["data"] == "data"


def test_its_environment_is_the_one_at_work_unless_none_is_wanted(mlxops) -> None:
    mlxops("init one")
    mlxops("init two --no-env")

    assert (Path("one/.venv").is_symlink(), os.path.lexists("two/.venv")) == (True, False)


@pytest.mark.slow
def test_inv_works_in_a_new_project_and_below(mlxops, inv, monkeypatch: pytest.MonkeyPatch) -> None:
    mlxops("init new")
    monkeypatch.chdir("new/data")

    code, out, _ = inv("runs --json")

    assert (code, json.loads(out)) == (0, [])


@pytest.mark.slow
def test_its_tasks_enter_an_environment_once_that_takes_itself_for_another(mlxops) -> None:
    mlxops("init new --no-env")
    python = Path("new/.venv/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho entered >> entered\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    Path("new/.venv/lib/python3.11/site-packages/mlxops-1.dist-info").mkdir(parents=True)
    program = "import sys, invoke.main; sys.argv[0] = 'inv'; invoke.main.program.run()"

    ended = subprocess.run([sys.executable, "-c", program, "runs", "--json"], cwd="new", capture_output=True, text=True)

    assert (ended.returncode, ended.stdout, Path("new/entered").read_text()) == (0, "[]\n", "entered\n"), ended.stderr


def test_what_cannot_be_a_project_is_explained_and_leaves_nothing(mlxops, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/mine").write_text("x")
    Path("file").write_text("x")
    before = sorted(tmp_path.rglob("*"))

    answers = {
        words: mlxops(f"init {words}")
        for words in (
            "",
            "full",
            "file",
            "file/below",
            "' '",
            "/",
            f"'{'a' * 201}'",
            "$'\t'",
            "x --here",
            "x --template y",
        )
    }

    assert {words: code for words, (code, _, _) in answers.items()} == {
        **dict.fromkeys(answers, 2),
        "full": 3,
        "file/below": 1,
    }
    assert all("hint: " in err for words, (_, _, err) in answers.items() if words != "file/below")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken_and_a_path_is_made(mlxops) -> None:
    Path("empty").mkdir()

    assert [mlxops("init empty")[0], mlxops("init deep/er/one")[0]] == [0, 0]
    assert Path("empty/tasks.py").is_file()
    assert Path("deep/er/one/tasks.py").is_file()


def test_here_keeps_what_is_there_and_adds_no_sample_rows_to_own_data(mlxops) -> None:
    Path("data").mkdir()
    Path("data/train.jsonl").write_text("{}\n")
    Path("README.md").write_text("mine")

    code, out, _ = mlxops("init --here --json")

    assert (code, "README.md" in json.loads(out)["files"]) == (0, False)
    assert Path("README.md").read_text() == "mine"
    assert [file.name for file in Path("data").iterdir()] == ["train.jsonl"]
    assert Path("recipes/small.yaml").is_file()
    assert mlxops("init --here")[0] == 3


def test_a_folder_that_takes_no_files_is_a_sentence_and_loses_none(mlxops) -> None:
    Path("recipes").write_text("a file in the way")

    code, _, err = mlxops("init --here")

    assert (code, "cannot be written" in err) == (1, True)
    assert not Path("tasks.py").exists()
    assert Path("recipes").read_text() == "a file in the way"


def test_templates_and_recipes_are_listed_with_commands_that_exist(mlxops) -> None:
    code, out, _ = mlxops("list-templates")
    listed = json.loads(mlxops("list-templates --json")[1])

    assert code == 0
    assert [each["name"] for each in listed] == ["basic", "advanced", *RECIPES]
    assert all(each["purpose"] in out for each in listed)
    assert max(map(len, out.splitlines())) <= 80
    assert {each["command"].split()[0] for each in listed} <= set(namespace.task_names)


@pytest.mark.slow
def test_every_recipe_trains(mlxops, monkeypatch: pytest.MonkeyPatch) -> None:
    mlxops("init recipes")
    monkeypatch.chdir("recipes")
    make_tiny(Path("models/tiny"), layers=16, hidden=32)
    shorten_rows(Path("data"))
    commands = {each.name: each.command for each in templates.available() if each.kind == "recipe"}

    results = {}
    for name, command in commands.items():
        code, out, err = mlxops(f"{command.replace('MODEL', 'tiny')} --iters 2 --samples 0 --json")
        results[name] = (code, json.loads(out)["iteration"] if code == 0 else err)

    assert results == dict.fromkeys(RECIPES, (0, 2))


@pytest.mark.slow
def test_the_scripts_of_the_advanced_template_train_measure_and_ask(
    mlxops, programs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(*words: str) -> tuple[int, str, str]:
        ended = subprocess.run([programs / "python", *words], capture_output=True, text=True, check=False)
        return ended.returncode, ended.stdout, ended.stderr

    mlxops("init scripts --template advanced")
    monkeypatch.chdir("scripts")
    shutil.copytree(tiny_model, "models/tiny")
    options = ["--model", "models/tiny"]
    adapter = ["--adapter", "adapters/script"]

    trained = script(SCRIPTS[1], *options, "--iters", "8", "--learning-rate", "0.02")
    before, after = (script(SCRIPTS[0], *options, *more, "--json") for more in ([], adapter))
    question = ["--max-tokens", "24", "How do I list my runs?"]
    base, asked = (script(SCRIPTS[2], *options, *more, *question) for more in ([], adapter))

    assert [ended[0] for ended in (trained, before, after, base, asked)] == [0] * 5, (trained, before, after, asked)
    assert json.loads(before[1])["rows"] == 2
    assert json.loads(after[1])["loss"] < json.loads(before[1])["loss"]
    assert asked[1] != base[1]
