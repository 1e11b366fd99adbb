"""`quickstart` makes a project, trains, shows what changed, and resumes where it was interrupted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, own_cache
from ready_programs import ready_programs
from shared_folders import Shared

from mlxops.models.sample import NAME
from mlxops.models.tiny import make_tiny
from mlxops.projects import templates

pytestmark = pytest.mark.slow


def read(name: str) -> list[dict[str, str]]:
    """Question and answer of the sample data's rows."""
    lines = (ROOT / "templates" / "data" / "manual" / f"{name}.jsonl").read_text().splitlines()
    turns = [[turn["content"] for turn in json.loads(line)["messages"]] for line in lines]
    return [{"question": question, "answer": answer} for question, answer in turns]


def test_the_sample_data_have_one_form_and_keep_what_is_asked_out_of_training() -> None:
    train, valid, test = (read(name) for name in ("train", "valid", "test"))

    answers = [row["answer"].split("\n") for row in [*train, *valid, *test]]
    questions = [row["question"] for row in [*train, *valid, *test]]
    assert (len(train), len(valid), len(test)) == (60, 8, 2)
    assert {tuple(line.partition(":")[0] for line in answer) for answer in answers} == {("Command", "Effect", "Note")}
    assert len(set(questions)) == 70
    assert {row["answer"] for row in [*valid, *test]} <= {row["answer"] for row in train}


def test_the_commands_that_the_sample_data_teach_exist(mlxops) -> None:
    typed = {row["answer"].split("\n")[0].removeprefix("Command: ") for row in read("train")}
    tasks = {command.split()[1] for command in typed if command.startswith("inv ")}

    assert {task: mlxops(f"{task} --help")[0] for task in tasks} == dict.fromkeys(tasks, 0)
    assert {command for command in typed if not command.startswith(("inv ", "mlx_lm."))} == {"Ctrl-C"}


@pytest.fixture(scope="session")
def first_try(shared: Shared) -> Path:
    return shared("quickstart", _try)


def _try(folder: Path) -> None:
    environment = {**os.environ, "MLXOPS_CACHE": str(own_cache(folder / "cache"))}
    with ready_programs(folder / "programs") as programs:
        command = [programs / "mlx-toolkit", "quickstart", "--tiny", "--iters", "2", "--json"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout)
    (folder / "shown.txt").write_text(done.stderr)


@pytest.fixture
def tried(first_try: Path) -> dict[str, Any]:
    """What a first `quickstart` of 2 iterations printed; a copy of its project stands in the current folder."""
    shutil.copytree(first_try / "quickstart", "quickstart", symlinks=True)
    said: dict[str, Any] = json.loads((first_try / "said.json").read_text())
    return said | {"folder": str(Path.cwd() / "quickstart")}


def test_quickstart_shows_losses_and_answers_before_and_after(tried, first_try: Path) -> None:
    assert (tried["run"]["status"], tried["run"]["iteration"]) == ("completed", 2)
    assert (tried["before"]["iteration"], tried["after"]["iteration"]) == (0, 2)
    assert tried["after"]["validation_loss"] < tried["before"]["validation_loss"]
    assert [answer["prompt"] for answer in tried["answers"]] == [row["question"] for row in read("test")]
    assert all(answer["base_answer"] != answer["answer"] for answer in tried["answers"])
    assert "iteration 2/2  finished" in (first_try / "shown.txt").read_text()
    assert (tried["fused"]["path"], tried["fused"]["parity"]["changed_tokens"]) == ("models/manual", 0)
    assert (Path("quickstart") / "models" / "manual" / "README.md").is_file()


def test_the_answers_are_rows_of_a_documented_view(tried) -> None:
    with closing(sqlite3.connect("quickstart/runs.db")) as db, db:
        rows = db.execute(
            "SELECT prompt, base_answer, answer FROM answer WHERE run IS NOT NULL ORDER BY row"
        ).fetchall()

    assert rows == [(each["prompt"], each["base_answer"], each["answer"]) for each in tried["answers"]]


def test_the_same_command_again_shows_the_same_and_works_no_more(mlxops, tried) -> None:
    again = json.loads(mlxops("quickstart --tiny --iters 2 --json")[1])

    assert (tried.pop("was_finished"), again.pop("was_finished")) == (False, True)
    assert again == tried


def test_a_plain_training_in_the_folder_is_the_same_run(mlxops, tried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("quickstart")

    code, out, _ = mlxops("lora")

    assert code == 0
    assert out.startswith(f"{tried['run']['name']}: already at iteration 2 of 2")


def test_a_quickstart_that_is_trained_on_keeps_what_a_person_changed(mlxops, tried) -> None:
    (Path("quickstart") / "data" / "valid.jsonl").unlink()
    own = Path("quickstart") / "README.md"
    own.write_text("mine")

    said = json.loads(mlxops("quickstart --tiny --iters 3 --json")[1])

    assert (said["run"]["iteration"], said["run"]["attempts"]) == (3, 2)
    assert own.read_text() == "mine"


def test_a_quickstart_that_was_killed_again_and_again_goes_on(mlxops, programs: Path) -> None:
    for there in (".mlxops", "models", "models/tiny", "runs.db", "adapters"):
        command = [programs / "mlx-toolkit", "quickstart", "--tiny", "--iters", "2", "--json"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None and not (Path("quickstart") / there).exists():
            os.sched_yield()
        running.kill()
        assert running.wait() == -signal.SIGKILL

    code, out, err = mlxops("quickstart --tiny --iters 2 --json")

    assert (code, json.loads(out)["run"]["status"]) == (0, "completed"), err


def test_two_at_once_do_not_disturb_each_other(mlxops, programs: Path) -> None:
    command = [programs / "mlx-toolkit", "quickstart", "--tiny", "--iters", "2", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [(*each.communicate(), each.returncode) for each in both]

    assert {code for _, _, code in said} <= {0, 3}, said
    assert all("monitor` shows it" in err for _, err, code in said if code == 3), said
    assert mlxops("quickstart --tiny --iters 2")[0] == 0


def test_a_moved_project_finds_its_environment_again(mlxops, tried, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    moved = Path("quickstart").rename(tmp_path / "deep" / "moved")
    (moved / ".venv").unlink()
    (moved / ".venv").symlink_to("../nowhere")

    code, out, _ = mlxops(f"quickstart --tiny --iters 2 --dir {moved}")

    assert (code, "finished already" in out) == (0, True)
    assert (moved / ".venv" / "bin" / "python").exists()


def test_rows_that_ask_nothing_are_not_asked(mlxops, tried) -> None:
    (Path("quickstart") / "data" / "test.jsonl").write_text('{"text": "hello there"}\n')

    code, out, _ = mlxops("quickstart --tiny --iters 2")

    assert (code, "The prompts are" in out) == (0, False)


def test_another_registry_is_named_in_the_commands(mlxops, tried, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("quickstart/runs.db").rename("my runs.db")
    monkeypatch.setenv("MLXOPS_DB", "my runs.db")

    out = mlxops("quickstart --tiny --iters 2")[1]

    assert f"  export MLXOPS_DB='{Path.cwd() / 'my runs.db'}'\n" in out


def test_the_commands_to_go_on_with_work_in_this_very_shell(tmp_path: Path, programs: Path) -> None:
    folder = tmp_path / "a try"
    folder.mkdir()
    start = [programs / "mlx-toolkit", "quickstart", "--tiny", "--iters", "1", "--dir", "my 'first' prö"]
    without = {**os.environ, "PATH": os.defpath}  # where `inv` is in PATH, no more than that is typed
    tried = subprocess.run(start, cwd=folder, capture_output=True, text=True, check=True, env=without).stdout
    commands = [line.strip() for line in tried.partition("Next\n")[2].splitlines()]
    installed = shlex.quote(str(Path(sys.executable).parent / "inv"))
    at_once = [command.replace(installed, shlex.quote(str(programs / "inv"))) for command in commands]

    done = subprocess.run(
        ["sh", "-c", "\n".join(["set -e", *at_once])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )

    assert len(commands) == 6
    assert commands[0].startswith("cd ")
    assert [command.startswith(f"{installed} ") for command in commands[1:]] == [True] * 5, commands
    assert (done.returncode, "finished at iteration 2 of 2" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("there", "command", "code", "message"),
    [
        ({"mine.txt": "x"}, "quickstart --tiny", 3, "holds other things"),
        (
            {".mlxops/quickstart.json": json.dumps({"model": NAME})},
            "quickstart --tiny",
            3,
            f"begun with the model {NAME}",
        ),
        ({".mlxops/quickstart.json": "{"}, "quickstart --tiny", 1, "is damaged"),
    ],
)
def test_a_folder_that_is_not_its_own_is_left_alone(mlxops, there, command: str, code: int, message: str) -> None:
    for name, text in there.items():
        file = Path("quickstart") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    ended, _, err = mlxops(command)

    assert (ended, message in err) == (code, True), err
    assert [path.name for path in Path("quickstart").rglob("*") if path.is_file()] == [
        Path(name).name for name in there
    ]


def test_a_file_in_the_place_of_the_folder_is_named(mlxops) -> None:
    Path("quickstart").write_text("x")

    code, _, err = mlxops("quickstart --tiny")

    assert (code, "is a file" in err) == (2, True)


def test_without_a_network_quickstart_names_tiny(mlxops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    code, _, err = mlxops("quickstart")

    assert (code, "could not be downloaded" in err, "quickstart --tiny" in err) == (1, True, True)


def test_a_folder_in_which_nothing_was_begun_is_taken_and_tiny_needs_no_network(
    mlxops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (Path("quickstart") / ".mlxops").mkdir(parents=True)

    assert mlxops("quickstart --tiny --iters 1")[0] == 0


def test_a_projects_tasks_hand_over_to_its_own_environment(tmp_path: Path) -> None:
    make_tiny(tmp_path / "models" / "tiny")
    templates.write_project(tmp_path, "basic", {"name": "x", "lora": "    model: tiny"})
    templates.link_environment(tmp_path)
    command = [sys._base_executable, "-I", "tasks.py", "models"]  # a Python that does not know mlxops

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=_bare())

    assert (ended.returncode, "tiny" in ended.stdout) == (0, True), ended.stderr


def test_a_project_without_an_environment_says_so(tmp_path: Path) -> None:
    templates.write_project(tmp_path, "basic", {"name": "x", "lora": "    model: tiny"})

    ended = subprocess.run(
        [sys._base_executable, "-I", "tasks.py"], cwd=tmp_path, capture_output=True, text=True, check=False, env=_bare()
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        "this inv does not know mlxops, and the project has no environment that does\n"
        "hint: `mlx-toolkit install-deps` makes it; `./install.sh` in a clone of mlxops installs mlx-toolkit\n"
    )


def test_a_template_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("mine")

    templates.write_project(tmp_path, "basic", {"name": "x", "lora": ""})

    assert (tmp_path / "invoke.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".gitignore",
        "README.md",
        "invoke.yaml",
        "tasks.py",
    ]


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
