"""The program `mlx-toolkit`: the tasks in any folder, the older spellings, and what a slip is answered with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke import Collection, Program

from mlxops.tasks import namespace
from mlxops.tasks.house import Task
from mlxops.tasks.planned import PLANNED
from mlxops.tasks.spelling import rewrite

Ended = tuple[int, str, str]
Typed = Callable[[str], Ended]

REUSED = {"config", "list", "debug", "p"}  # the core names of Invoke that a task may have for its own
ROOT_NAMES = {
    *("init", "install-deps", "download-model", "lora", "chat", "finetune", "query", "test", "list-templates"),
    *("create-training-data", "status", "models", "train-monitor", "benchmark", "update", "checkpoints"),
    *("debug-checkpoints", "monitor", "runs", "sql", "quickstart", "doctor", "clean", "help"),
}
TASKS = {name: namespace[name] for name in namespace.task_names}


def test_bare_it_lists_every_task_once_in_a_line_each(mlxops: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    code, out, err = mlxops("")

    tasks = [line for line in out.splitlines() if line.startswith("  ")]
    assert (code, err) == (0, "")
    assert len(tasks) == len(set(TASKS.values()))
    assert out.splitlines()[-1] == "`mlx-toolkit TASK --help` explains a task and its options."


@pytest.mark.parametrize("command", ["--help", "-h", "help"])
def test_help_is_the_same_list(mlxops: Typed, command: str) -> None:
    assert mlxops(command) == mlxops("")


@pytest.mark.parametrize("command", ["help lora", "--help lora", "lora --help"])
def test_a_task_is_explained_however_one_asks(mlxops: Typed, command: str) -> None:
    code, out, _ = mlxops(command)

    assert code == 0
    assert out.startswith("mlx-toolkit lora [--options]\n")
    assert "  --iters N  " in out


def test_help_for_an_unknown_task_suggests_the_nearest(mlxops: Typed) -> None:
    assert mlxops("help lroa") == (2, "", "there is no task 'lroa'\nhint: did you mean 'lora'?\n")


def test_only_a_task_that_is_typed_has_its_options_made(mlxops: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    get_arguments = Task.get_arguments
    monkeypatch.setattr(Task, "get_arguments", lambda task, *args, **kw: made.append(task) or get_arguments(task))

    assert mlxops("runs --json") == (0, "[]\n", "")
    assert set(made) == {TASKS["runs"]}


def test_it_says_its_version(mlxops: Typed) -> None:
    assert mlxops("--version") == (0, "mlx-toolkit 1\n", "")


@pytest.mark.parametrize("command", ["lroa", "lora --itres 3", "--nope", "run.show", "lora --iters", "--help lroa"])
def test_what_cannot_be_parsed_is_exit_code_2(mlxops: Typed, command: str) -> None:
    code, out, err = mlxops(command)

    assert (code, out) == (2, "")
    assert err


def test_it_reads_the_settings_of_the_project_from_below(mlxops: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("invoke.yaml").write_text("mlxops: {runs: {limit: none}}")
    Path("below").mkdir()
    monkeypatch.chdir("below")

    assert mlxops("runs")[2] == (
        "invoke.yaml: mlxops.runs: limit takes a whole number, not 'none'\n"
        "hint: `mlx-toolkit runs --help` explains its options\n"
    )


def test_settings_that_are_no_yaml_are_named(mlxops: Typed) -> None:
    Path("tasks.py").touch()
    Path("invoke.yaml").write_text("mlxops: [1")

    code, _, err = mlxops("runs")

    assert code == 2
    assert err.startswith("invoke.yaml:1: not YAML: ")


# the namespace -------------------------------------------------------------------------------------------------------


def test_the_root_has_no_names_but_those_of_the_design() -> None:
    assert set(namespace.tasks) <= ROOT_NAMES


def test_every_task_is_the_houses_and_says_what_it_does() -> None:
    assert [name for name, task in TASKS.items() if not isinstance(task, Task) or not task.__doc__] == []


def test_a_task_has_no_option_of_invokes_own_but_those_that_may_be_reused() -> None:
    program = Program()
    core = {each for argument in program.core_args() + program.task_args() for each in argument.names}

    taken = {
        name: {each for argument in task.get_arguments() for each in argument.names} & core
        for name, task in TASKS.items()
    }

    # --help and -h mean here what they mean to Invoke, and are safe beside a missing positional.
    assert {name: names for name, names in taken.items() if not names - {"help", "h"} <= REUSED} == {}


# the older spellings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("lora M D --iters 3", "lora --model M --data D --iters 3"),
        ("lora M --iters 3 D", "lora --model M --iters 3 --data D"),
        ("lora --iters 3 M D", "lora --iters 3 --model M --data D"),
        ("lora --model M D", "lora --model M --data D"),
        ("lora M D -o out -i 5", "lora --model M --data D --output out --iters 5"),
        ("lora -m M -o=out", "lora --model M --output=out"),
        ("lora M --no-mask-prompt D", "lora --model M --no-mask-prompt --data D"),
        ("lora --tag a b --iters 3", "lora --tag a --tag b --iters 3"),
        ("lora --note --iters 3", "lora --note --iters 3"),
        ("lora M D extra", "lora --model M --data D extra"),
        ("lora M runs --limit 3", "lora --model M runs --limit 3"),
        ("lora M --resume D", "lora --model M --data D"),
        ("lora --tag a --resume M D", "lora --tag a --model M --data D"),
        ("lora --note --resume M", "lora --note --model M"),
        ("models -s llama", "models --search llama"),
        ("train-monitor -l -r 2", "train-monitor --live --refresh 2"),
        ("sql select runs", "sql select runs"),
        ("sql runs runs", "sql runs runs"),
        ("-d lora M", "-d lora --model M"),
        ("--list", "--list"),
        ("unknown word", "unknown word"),
        ("runs -o x", "runs -o x"),
        ("", ""),
    ],
)
def test_an_older_spelling_becomes_ours(typed: str, ours: str) -> None:
    assert rewrite(typed.split(), namespace) == ours.split()


def test_the_older_flags_of_models_are_taken(mlxops: Typed) -> None:
    code, out, err = mlxops("models -f downloaded -s nothing --json")

    assert (code, out, err) == (0, "[]\n", "")


def test_a_word_that_is_a_task_and_a_folder_is_the_folder() -> None:
    Path("runs").mkdir()

    assert rewrite(["lora", "M", "runs"], namespace) == ["lora", "--model", "M", "--data", "runs"]


def test_a_task_of_invokes_own_kind_is_left_as_it_was_typed() -> None:
    from invoke import Context, task

    @task
    def mine(c: Context, word: str) -> None: ...

    assert rewrite(["mine", "--word", "x"], Collection(mine)) == ["mine", "--word", "x"]


# Invoke's --dry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "--dry lora m data",
        "-R lora --model m",
        "lora --dry m data",
        "lora m --dry data",
        "lora m data --iters 2 --dry",
        "lora --model m -R --iters 2",
        "train.lora m data --dry",
    ],
)
def test_dry_never_starts_a_training_wherever_it_stands(mlxops, command):
    code, out, err = mlxops(command)

    assert (code, out) == (2, "")
    assert "--dry is an option of Invoke that has no effect here: lora would run" in err
    assert err.splitlines()[-1] == "hint: `mlx-toolkit lora --preview` shows what would happen"
    assert list(Path.cwd().iterdir()) == []


def test_dry_as_a_value_is_no_value(mlxops):
    code, _, err = mlxops("lora --model --dry")

    assert code == 2
    assert err == "--model takes a text, not the option '--dry'\nhint: `--preview` is the option for that\n"


def test_dry_is_refused_by_tasks_without_a_preview_too(mlxops):
    code, _, err = mlxops("run.delete heron --yes --dry")

    assert (code, err.splitlines()[-1]) == (2, "hint: leave it out")


@pytest.mark.parametrize("typed", ["--dr", "--hide", "--pry", "--ech", "--promp-for-sudo-password", "--lisst"])
def test_an_option_of_invokes_own_is_never_suggested(mlxops, typed):
    from invoke import Program

    code, _, err = mlxops(f"lora {typed}")

    own = {f"--{name}" for argument in Program().core_args() for name in argument.names if len(name) > 1}
    hint = err.splitlines()[-1]
    assert code == 2
    assert not own & set(hint.replace("?", " ").replace("`", " ").split()) - {"--help", "--config"}


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("--lr 1e-4", "`--learning-rate` is the option for that"),
        ("--lr=1e-4", "`--learning-rate` is the option for that"),
        ("--learning_rate 1e-4", "did you mean `--learning-rate`?"),
        ("--max-steps 4", "`--iters` is the option for that"),
        ("--itres 4", "did you mean `--iters`?"),
    ],
)
def test_a_name_of_another_program_is_answered_with_the_option(mlxops, typed, hint):
    code, _, err = mlxops(f"lora m {typed}")

    assert code == 2
    assert err == f"lora has no option {typed.split()[0].split('=')[0]}\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("monitor --plain", "--live"),  # more like --last, which takes a number
        ("monitor --plain --once", "--live"),
        ("monitor --plain 3", "--last"),
        ("monitor --plain=3", "--last"),
        ("monitor --lst", "--last"),  # one letter
        ("monitor --jsn", "--json"),
        ("monitor --onec", "--once"),
        ("benchmark --trails", None),
        ("benchmark --trails 2", "--iterations"),
        ("lora m --itres", "--iters"),
        ("lora m --learnin-rat", None),
        ("lora m --learnin-rat 1e-4", "--learning-rate"),
        ("lora --model --previw", "--preview"),
        ("lora --model --learnin-rat", None),
    ],
)
def test_an_option_that_needs_a_value_is_meant_by_one_without_only_if_one_letter_is_wrong(
    mlxops: Typed, command: str, hint: str | None
) -> None:
    code, out, err = mlxops(command)

    assert (code, out) == (2, "")
    assert re.findall(r"did you mean `(.+)`", err) == ([hint] if hint else [])


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("run.compare a b", "several are one list, with commas: `mlx-toolkit run.compare a,b`"),
        ("run.delete 'x y,z' w", "several are one list, with commas: `mlx-toolkit run.delete 'x y,z,w'`"),
        ("run.tag a b --add c", "several are one list, with commas: `mlx-toolkit run.tag a,b`"),
        ("run.show a b", "run.show takes one: `mlx-toolkit run.show b` is a call of its own"),
        ("runs 12", "`mlx-toolkit run.show 12` is about one"),
        ("models 'two words'", "`mlx-toolkit model.info 'two words'` is about one"),
        ("status 1", "status takes options alone: `mlx-toolkit status --help` shows them"),
        ("data", "data is a group of tasks: check, create, preview; `mlx-toolkit data.check` is one"),
        ("history", "`mlx-toolkit runs` does that"),
        ("xyzzy", "`mlx-toolkit --list` shows the tasks there are"),
        ("run.compare a runz", "did you mean 'runs'?"),
        ("resume crane", "did you mean 'train.resume'?"),
        ("import x", "did you mean 'model.import' or 'run.import'?"),
    ],
)
def test_a_word_that_is_no_task_is_answered_with_what_was_meant(mlxops: Typed, command: str, hint: str) -> None:
    code, out, err = mlxops(command)

    assert (code, out, err.splitlines()[1]) == (2, "", f"hint: {hint}")


@pytest.mark.parametrize("name", PLANNED)
def test_a_task_that_is_planned_is_answered_with_what_does_its_work(mlxops: Typed, name: str) -> None:
    code, _, err = mlxops(f"{name} x --y")

    assert (code, err.splitlines()[0]) == (2, f"{name} is planned and not there yet")
    assert name not in namespace.task_names, "it is there now: take it out of the table"
    for task in re.findall(r"`inv ([\w.-]+)", PLANNED[name]):
        assert task in namespace.task_names


def test_outside_a_project_what_is_said_names_the_program_that_works_there(mlxops: Typed) -> None:
    said = {task: "".join(mlxops(task)[1:]) for task in ("runs", "checkpoints", "monitor --once", "debug-checkpoints")}

    assert {task: text for task, text in said.items() if "`mlx-toolkit lora " not in text or "inv " in text} == {}


def test_a_slip_of_the_fingers_is_answered_by_what_was_meant(mlxops: Typed) -> None:
    said = {
        typed: mlxops(typed)[2]
        for typed in (
            "benchmark --trails 2", "model.import sampel", "train.resume heron --lr 1e-3",
            "train.resume heron --learning-rate 1e-3", "run.show --jsn",
        )
    }  # fmt: skip
    keeps = "a run keeps its settings; `mlx-toolkit lora --branch --from RUN --learning-rate …` starts another run"

    assert said["benchmark --trails 2"] == "benchmark has no option --trails\nhint: did you mean `--iterations`?\n"
    assert "did you mean 'sample'?" in said["model.import sampel"]
    assert all(keeps in said[f"train.resume heron --{name} 1e-3"] for name in ("lr", "learning-rate"))
    assert said["run.show --jsn"] == "run.show has no option --jsn\nhint: did you mean `--json`?\n"
