"""The house `@task`, with tasks of this file: options, layers of settings, errors and exit codes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from invoke import Collection, Context
from invoke.exceptions import Exit

from mlxops import errors
from mlxops.config import LoraConfig, RunsConfig
from mlxops.options import option
from mlxops.tasks import house
from mlxops.tasks.house import task

Ended = tuple[int, str, str]


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    wall: str = option(None, "the wall to paint", positional=True)
    coats: int = option(2, "coats of paint", at_least=1)
    thickness: float = option(0.5, "thickness, in mm")
    color: Literal["red", "green"] = option("red", "color of the paint", aliases=["colour"])
    prime: bool = option(True, "prime before")
    dry_run_first: bool = option(False, "try on paper")
    tools: list[str] = option([], "tools to use")


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """The names of Invoke's own options that a task may reuse."""

    config: str | None = option(None, "a file")
    list: str | None = option(None, "a list")
    debug: bool = option(False, "debug")
    prompt: str | None = option(None, "a prompt", aliases=["p"])


@dataclass(frozen=True, kw_only=True)
class RaiseConfig:
    name: str = option("", "the error to raise", positional=True)


@task
def paint(c: Context, config: PaintConfig) -> None:
    """Paint a wall.

    It needs time to dry.
    """
    print(config)


@task
def core(c: Context, config: CoreConfig) -> None:
    """Say what the reused names were given."""
    print(config)


@task
def settled(c: Context, config: LoraConfig) -> None:
    """Say what a run's settings are."""
    print(f"{config.iters=} {config.batch_size=} {config.learning_rate=} {config.model=} {config.data=}")


@task
def listed(c: Context, config: RunsConfig) -> None:
    """Say what the list's settings are."""
    print(f"{config.limit=} {config.model=}")


ERRORS: dict[str, BaseException] = {
    "not-found": errors.NotFound("no run 'x'", hint="`inv runs` shows the runs there are"),
    "data": errors.InvalidData("the data cannot be used", [f"d.jsonl:{n}: no" for n in range(1, 26)]),
    "differ": errors.SettingsDiffer("another run is there", [("lora_rank", 8, 16)], hint="`--new` starts another"),
    "interrupted": errors.Interrupted(signal.SIGTERM, "saved at 4"),
    "ctrl-c": KeyboardInterrupt(),
    "bug": ZeroDivisionError("by zero\nand more"),
    "exit": Exit("enough", code=7),
}


@task(name="raise")
def raise_error(c: Context, config: RaiseConfig) -> None:
    """Raise an error."""
    raise ERRORS[config.name]


NAMESPACE = Collection(paint, core, settled, listed, raise_error)


@pytest.fixture
def typed(mlxops: Callable[..., Ended]) -> Callable[[str], Ended]:
    return lambda command: mlxops(command, namespace=NAMESPACE)


Typed = Callable[[str], Ended]


# options -------------------------------------------------------------------------------------------------------------


def test_what_is_typed_becomes_the_dataclass(typed: Typed) -> None:
    code, out, _ = typed("paint 'north wall' --coats 3 --colour green --no-prime --dry-run-first --thickness -1e-3")

    expected = PaintConfig(wall="north wall", coats=3, color="green", prime=False, dry_run_first=True, thickness=-1e-3)
    assert (code, out) == (0, f"{expected}\n")


def test_what_is_not_typed_is_the_default(typed: Typed) -> None:
    assert typed("paint north")[1] == f"{PaintConfig(wall='north')}\n"


def test_a_list_repeats_or_takes_commas(typed: Typed) -> None:
    assert "tools=['brush', 'roller', 'tape']" in typed("paint w --tools brush,roller --tools tape")[1]
    assert "tools=['brush', 'roller', 'tape']" in typed("paint w --tools '[brush, roller]' --tools tape")[1]


def test_of_a_value_given_twice_the_last_counts(typed: Typed) -> None:
    assert "coats=5" in typed("paint w --coats 3 --coats 5")[1]


def test_an_equals_sign_gives_a_value_too(typed: Typed) -> None:
    assert "coats=3" in typed("paint w --coats=3")[1]


def test_the_same_call_twice_runs_twice(typed: Typed) -> None:
    assert typed("paint w paint w")[1] == f"{PaintConfig(wall='w')}\n" * 2


def test_a_task_can_be_called_with_its_dataclass(capsys: pytest.CaptureFixture[str]) -> None:
    paint(Context(), config=PaintConfig(wall="w", coats=9))

    assert "coats=9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "code", "lines"),
    [
        ("paint w --coats abc", 2, ["--coats takes a whole number, not 'abc'"]),
        ("paint w --coats 0", 2, ["--coats takes a whole number at least 1, not 0"]),
        ("paint w --coats", 2, ["--coats takes a whole number at least 1, and none is given"]),
        ("paint w --coats --no-prime", 2, ["--coats takes a whole number at least 1, and none is given"]),
        ("paint w --color gren", 2, ["--color takes one of red, green, not 'gren'", "hint: did you mean 'green'?"]),
        (
            "paint w --tools --cots",
            2,
            ["--tools takes a list, not the option '--cots'", "hint: did you mean `--coats`?"],
        ),
        ("paint w --tools [brush, roller]", 2, ["--tools takes a list, not '[brush,'", ...]),
        ("paint w --cotas 3", 2, ["paint has no option --cotas", "hint: did you mean `--coats`?"]),
        ("paint w --zzz", 2, ["paint has no option --zzz", "hint: `mlx-toolkit paint --help` shows its options"]),
        ("paint w --coats 3 4", 2, ["--coats takes one value, and there is no task '4' after it", ...]),
        ("paint w --prime=no", 2, ["--prime takes no value, and there is no task 'no' after it", ...]),
        ("pain w", 2, ["there is no task 'pain'", "hint: did you mean 'paint'?"]),
        ("paint", 2, ["paint needs WALL", "hint: `mlx-toolkit paint --help` explains it"]),
        ("paint --cotas", 2, ["paint has no option --cotas", "hint: did you mean `--coats`?"]),
    ],
)
def test_what_is_wrong_is_said_with_what_to_type(typed: Typed, command: str, code: int, lines: list[Any]) -> None:
    ended, out, err = typed(command)

    assert (ended, out) == (code, "")
    said = err.splitlines()
    assert said[: len(lines)] == [wanted if wanted is not ... else said[1] for wanted in lines]


@pytest.mark.parametrize("command", ["paint --help", "paint -h", "paint w --help", "paint w --coats 3 -h"])
def test_help_explains_and_runs_nothing(typed: Typed, command: str) -> None:
    code, out, _ = typed(command)

    assert code == 0
    assert "PaintConfig(" not in out
    assert out.splitlines()[:5] == [
        "mlx-toolkit paint WALL [--options]",
        "",
        "  Paint a wall.",
        "",
        "  It needs time to dry.",
    ]


def test_help_shows_choices_defaults_and_both_sides_of_a_switch(typed: Typed) -> None:
    out = typed("paint --help")[1]

    assert "--coats N                 coats of paint (default: 2)" in out
    assert "--color, --colour CHOICE  color of the paint (red, green) (default: red)" in out
    assert "--[no-]prime              prime before (default: yes)" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--config f.yaml", CoreConfig(config="f.yaml")),
        ("--list all", CoreConfig(list="all")),
        ("--debug", CoreConfig(debug=True)),
        ("-p hello", CoreConfig(prompt="hello")),
    ],
)
def test_a_name_of_invoke_may_be_reused(typed: Typed, options: str, expected: CoreConfig) -> None:
    Path("f.yaml").write_text("")

    assert typed(f"core {options}") == (0, f"{expected}\n", "")


# layers --------------------------------------------------------------------------------------------------------------


def test_each_layer_is_stronger_than_the_one_before(typed: Typed) -> None:
    Path("invoke.yaml").write_text(
        "mlxops:\n  iters: 1\n  batch_size: 1\n  learning_rate: 1e-3\n  lora:\n    iters: 2\n    batch_size: 2\n"
    )
    Path("r.yaml").write_text("iters: 3\n")

    assert "config.iters=2 config.batch_size=2 config.learning_rate=0.001" in typed("settled")[1]
    assert "config.iters=3 config.batch_size=2" in typed("settled --config r.yaml")[1]
    assert "config.iters=4 config.batch_size=2" in typed("settled --config r.yaml --iters 4")[1]


def test_the_default_said_on_the_command_line_beats_invoke_yaml(typed: Typed) -> None:
    Path("invoke.yaml").write_text("mlxops: {lora: {iters: 7}}")

    assert "config.iters=1000" in typed("settled --iters 1000")[1]


def test_a_setting_of_runs_does_not_reach_into_other_commands(typed: Typed) -> None:
    Path("invoke.yaml").write_text("mlxops: {model: m, runs: {limit: 3}}")

    assert typed("listed")[1] == "config.limit=3 config.model=None\n"


def test_the_recipe_may_stand_in_invoke_yaml(typed: Typed) -> None:
    Path("invoke.yaml").write_text("mlxops: {lora: {config: r.yaml}}")
    Path("r.yaml").write_text("iters: 3\n")

    assert "config.iters=3" in typed("settled")[1]


def test_paths_in_files_are_from_the_root_and_those_typed_as_they_are(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path.cwd()
    Path("invoke.yaml").write_text("mlxops: {model: some-name, data: rows}")
    Path("below").mkdir()
    monkeypatch.chdir("below")

    assert f"config.model='some-name' config.data='{root / 'rows'}'" in typed("settled")[1]
    assert "config.data='rows'" in typed("settled --data rows")[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mlxops: {itres: 3}", "invoke.yaml: mlxops: 'itres' is no setting"),
        ("mlxops: {lora: {itres: 3}}", "invoke.yaml: mlxops.lora: 'itres' is no setting here"),
        ("mlxops: {lora: {iters: many}}", "invoke.yaml: mlxops.lora: iters takes a whole number, not 'many'"),
        ("mlxops: {lora: 3}", "invoke.yaml: mlxops.lora takes settings, not 3"),
        ("mlxops: 3", "invoke.yaml: mlxops takes settings, not 3"),
    ],
)
def test_a_wrong_setting_of_the_project_names_the_file(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    monkeypatch.delenv("INVOKE_RUNTIME_CONFIG")  # the settings of the tests, which Invoke cannot merge with a number
    Path("invoke.yaml").write_text(text)

    code, _, err = typed("settled")

    assert code == 2
    assert err.splitlines()[0] == sentence


def test_notes_about_a_recipe_go_to_stderr(typed: Typed) -> None:
    Path("r.yaml").write_text("report_to: wandb\n")

    said = typed("settled --config r.yaml")[2]

    assert said == "r.yaml: report_to is ignored: every run is in the registry, and `inv monitor` shows it\n"


def test_every_reading_of_one_task_knows_what_waits_for_its_start_and_the_next_task_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[int | None] = []

    @task
    def twice(c: Context, config: RaiseConfig) -> None:
        heard.extend(house.invocation(c).background for _ in range(2))

    monkeypatch.setenv("MLXOPS_BACKGROUND", "7")
    for _ in range(2):
        twice(Context(), config=RaiseConfig())

    assert heard == [7, 7, None, None]
    assert "MLXOPS_BACKGROUND" not in os.environ


def test_settings_say_where_a_command_works(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("runs.db").touch()
    Path("below").mkdir()
    root = Path.cwd()
    monkeypatch.chdir("below")
    monkeypatch.setenv("MLXOPS_BLAS", "off")
    monkeypatch.setattr("sys.argv", ["/bin/mlx-toolkit", "lora", "--model", "a b"])

    invocation = house.invocation(Context())

    assert (invocation.project.cwd, invocation.project.root, invocation.project.registry_path) == (
        root / "below",
        root,
        root / "runs.db",
    )
    assert (invocation.blas, invocation.cache) == ("off", Path(os.environ["MLXOPS_CACHE"]))
    assert invocation.command == "mlx-toolkit lora --model 'a b'"


# errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "first", "last"),
    [
        ("not-found", 2, "no run 'x'", "hint: `mlx-toolkit runs` shows the runs there are"),
        ("data", 2, "the data cannot be used", "  … and 5 more"),
        ("differ", 3, "another run is there", "hint: `--new` starts another"),
        ("interrupted", 143, "saved at 4", "saved at 4"),
        ("exit", 7, "enough", "enough"),
    ],
)
def test_an_error_is_a_sentence_and_its_exit_code(typed: Typed, name: str, code: int, first: str, last: str) -> None:
    ended, out, err = typed(f"raise {name}")

    assert (ended, out) == (code, "")
    assert (err.splitlines()[0], err.splitlines()[-1]) == (first, last)


def test_of_many_problems_the_first_20_are_shown(typed: Typed) -> None:
    lines = typed("raise data")[2].splitlines()

    assert lines[1:21] == [f"  d.jsonl:{n}: no" for n in range(1, 21)]


def test_settings_that_differ_are_named_with_both_values(typed: Typed) -> None:
    assert "  lora_rank: was 8, now 16" in typed("raise differ")[2].splitlines()


def test_ctrl_c_is_130_and_silent(typed: Typed) -> None:
    assert typed("raise ctrl-c") == (130, "", "")


def test_a_bug_is_one_line_and_its_traceback_is_kept_at_the_root(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path.cwd()
    Path("runs.db").touch()
    Path("below").mkdir()
    monkeypatch.chdir("below")

    code, out, err = typed("raise bug")

    (kept,) = (root / ".mlxops").glob("crash-*.txt")
    assert (code, out) == (1, "")
    assert err == f"this is a bug in mlxops: ZeroDivisionError: by zero\nhint: the traceback is in {kept}\n"
    assert "raise ERRORS[config.name]" in kept.read_text()


def test_a_traceback_that_cannot_be_kept_here_is_kept_elsewhere(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    Path(".mlxops").write_text("a file is in the way")

    code, _, err = typed("raise bug")

    assert code == 1
    assert str(elsewhere / ".mlxops" / "crash-") in err


def test_the_traceback_is_shown_at_once_if_asked_for(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXOPS_DEBUG", "1")

    code, _, err = typed("raise bug")

    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
