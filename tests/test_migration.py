"""What docs/migration.md says is so: its commands end as it says, its messages are the program's, its gaps are gaps.

Blocks of `sh` are commands that work; blocks of `console` are what a person sees, and `echo $?` the exit code.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from commands import ROOT
from hub import Hub
from small_checkouts import UV, write_checkout, write_wheels

from mlxops import resources
from mlxops.models.tiny import make_tiny
from mlxops.tasks import namespace
from mlxops.tasks.spelling import rewrite

Typed = Callable[[str], tuple[int, str, str]]

OLD_COMMANDS = (
    *("init", "install-deps", "download-model", "lora", "chat", "finetune", "query", "test", "list-templates"),
    *("create-training-data", "status", "models", "train-monitor", "benchmark", "update", "checkpoints"),
    "debug-checkpoints",
)
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
NOT_HERE = "not in this version"


@dataclass(frozen=True)
class Step:
    """Something that is typed; `shown` are lines it prints one after the other, in which … is anything."""

    typed: str
    shown: str = ""
    code: int = 0


def steps() -> list[Step]:
    """All that the page types, in its order."""
    found = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        found += [Step(text)] if kind == "sh" else transcript(text)
    return found


def transcript(text: str) -> list[Step]:
    found: list[Step] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        typed, _, shown = part.partition("\n")
        if typed == "echo $?":
            found[-1] = replace(found[-1], code=int(shown))
        else:
            found.append(Step(typed, shown.rstrip("\n")))
    return found


def table(*header: str) -> list[list[str]]:
    """The rows of all tables with this header, cell by cell."""
    found = []
    for head, rows in re.findall(r"^\| (.*) \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE):
        cells = [cell.strip() for cell in head.split("|")]
        if cells[: len(header)] == list(header):
            found += [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return found


def unquoted(cell: str) -> str:
    return cell.replace("`", "")


def section(command: str) -> str:
    return PAGE.partition(f"\n### {command}\n")[2].partition("\n##")[0]


def missing_options() -> list[tuple[str, str]]:
    """Each option that the section of a command of this version says is not in it, with the command."""
    return [
        (name, option)
        for name in OLD_COMMANDS
        for sentence in re.findall(rf"((?:`--[a-z-]+`(?:, | and |))+) (?:is|are) {NOT_HERE}", section(name))
        for option in re.findall(r"--[a-z-]+", sentence)
    ]


COMMANDS = [(unquoted(name), here) for name, here, _ in table("command", "here")]
MISSING = [name for name, here in COMMANDS if here == NOT_HERE]


# what can be seen without training -----------------------------------------------------------------------------------


def test_every_command_of_the_older_toolkit_is_in_the_table_once() -> None:
    assert sorted(name for name, _ in COMMANDS) == sorted(OLD_COMMANDS)


@pytest.mark.parametrize("name", OLD_COMMANDS)
def test_every_command_has_a_section_that_says_what_was_typed_and_whether_it_is_here(name: str) -> None:
    assert section(name).lstrip().startswith(f"You typed `mlx-toolkit {name}")
    assert ("It is not in this version" in section(name)) == (name in MISSING)


def test_a_command_is_in_this_version_where_the_page_says_so() -> None:
    assert [name for name, here in COMMANDS if here == "yes"] == [
        name for name, _ in COMMANDS if name in namespace.task_names
    ]


@pytest.mark.parametrize("name", MISSING)
def test_a_command_that_is_not_in_this_version_is_unknown(mlxops: Typed, name: str) -> None:
    code, out, err = mlxops(name)

    assert (code, out) == (2, "")
    assert err.startswith(f"there is no task {name!r}\n")


@pytest.mark.parametrize(("task", "option"), missing_options())
def test_an_option_that_is_not_in_this_version_is_unknown(mlxops: Typed, task: str, option: str) -> None:
    assert mlxops(f"{task} {option} x")[2].startswith(f"{task} has no option {option}\n")


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(?:mlx-toolkit|inv) ([a-z.-]+)", PAGE))))
def test_a_command_in_a_sentence_is_one_of_today_or_of_the_older_toolkit(command: str) -> None:
    assert command in {*namespace.task_names, *OLD_COMMANDS, "--version", "--list"}


@pytest.mark.parametrize(("task", "rest"), re.findall(r"(?<!typed )`mlx-toolkit ([a-z][a-z.-]*)( [^`]*--[^`]*)`", PAGE))
def test_a_command_of_today_in_a_sentence_has_the_options_it_is_given(mlxops: Typed, task: str, rest: str) -> None:
    helped = mlxops(f"{task} --help")[1]

    assert [word for word in rest.split() if word.startswith("--") and word not in helped] == []


@pytest.mark.parametrize(
    ("task", "row"), [(task, row) for task in ("lora", "finetune") for row in table(f"older `{task}`")], ids=str
)
def test_an_option_is_called_today_what_the_table_says(mlxops: Typed, task: str, row: list[str]) -> None:
    known = mlxops(f"{task} --help")[1]

    assert row[1] == "" or re.search(rf"{unquoted(row[1])}\b", known)


@pytest.mark.parametrize(("typed", "taken"), table("typed", "is taken as"))
def test_a_spelling_is_taken_as_the_table_says(typed: str, taken: str) -> None:
    assert rewrite(unquoted(typed).split(), namespace) == unquoted(taken).split()


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(set(re.findall(r"`((?:hf|mlx_lm\.\w+) [^`]*--[^`]*)`", PAGE))))
def test_a_program_of_others_has_the_options_that_a_sentence_gives_it(command: str) -> None:
    words = command.split()
    asked = words[:2] if words[0] == "hf" else words[:1]

    helped = subprocess.run(
        [str(Path(sys.executable).parent / asked[0]), *asked[1:], "--help"], capture_output=True, text=True, check=True
    )

    assert [word for word in words if word.startswith("--") and word not in helped.stdout] == []


# an old project, and all that is typed in it -------------------------------------------------------------------------


@pytest.fixture
def old_project(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the older toolkit left it: its copies of the data, the adapter and log that mlx-lm wrote for it.

    The model has a quarter of the layers that are trained unless told otherwise, and its owner's settings say so.
    """
    project = tmp_path / "old project"
    make_tiny(project / "models" / "NAME", layers=4, hidden=32)
    settings = tmp_path / "settings.yaml"
    settings.write_text("mlxops: {samples: 0, num_layers: 4}\n", encoding="utf-8")
    monkeypatch.setenv("INVOKE_RUNTIME_CONFIG", str(settings))
    rows = [{"instruction": f"Number {number}?", "response": f"{number}.\nYes."} for number in range(40)]
    flat = [{"text": f"User: {row['instruction']} Assistant: {row['response']}".replace("\n", " ")} for row in rows]
    pairs = [{"prompt": row["instruction"], "completion": row["response"]} for row in rows[:4]]
    # two rows and no newline, as create-training-data wrote them
    unbroken = "".join(json.dumps(row) + r"\n" for row in rows[:2])
    files = {
        ".gitignore": "venv/\n*.jsonl\n",
        "data/training.jsonl": lines(rows),
        "data/train.jsonl": unbroken,
        "held-out/test.jsonl": lines(pairs),
        "train.jsonl": lines(flat),
        "mlx_data/train.jsonl": lines(flat[:36]),
        "mlx_data/valid.jsonl": lines(flat[36:]),
        "fine_tuned_model/config.json": '{"model_type": "mlx_lora_model", "saved_with": "mlx_toolkit"}',
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "venv").mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    # what the older `lora` ran
    trained = shell(
        "mlx_lm lora --model models/NAME --train --data mlx_data --iters 10 --save-every 10 --batch-size 4"
        " --num-layers 4 --adapter-path models/lora_adapters --learning-rate 1e-5 --steps-per-report 10"
        " --steps-per-eval 100"
    )
    assert trained.returncode == 0, trained.stdout
    (project / "training.log").write_text(trained.stdout, encoding="utf-8")
    return project


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def shell(typed: str) -> subprocess.CompletedProcess[str]:
    """What a shell did; stdout has stderr in it. The q is for `mlx_lm.chat`, the only one that asks."""
    return subprocess.run(
        ["sh", "-e", "-c", typed],
        input="q\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def differs(step: Step) -> str | None:
    """What a step did otherwise than the page says, None where it did that."""
    ended = shell(step.typed)
    pattern = re.escape(step.shown).replace("…", ".*")
    is_shown = not step.shown or re.search(f"^{pattern}$", ended.stdout, re.MULTILINE)
    if ended.returncode == step.code and is_shown:
        return None
    return f"exit code {ended.returncode}\n{ended.stdout[-2000:]}"


@pytest.mark.slow
def test_everything_the_page_types_ends_and_prints_as_it_says(old_project: Path) -> None:
    kept = ("data/training.jsonl", "models/lora_adapters/adapters.safetensors", "training.log")
    before = [(old_project / name).read_bytes() for name in kept]

    wrong = {step.typed: found for step in steps() if (found := differs(step)) is not None}

    assert len(steps()) > 20
    assert wrong == {}
    assert [(old_project / name).read_bytes() for name in kept] == before


# a real day, by the older spellings ----------------------------------------------------------------------------------

HUB_ID = "somebody/tiny"
DAY = {
    "init my-project": "my-project",
    "install-deps": "complete",
    f"download-model {HUB_ID}": "models/tiny",
    "lora models/tiny data/mine.jsonl -i 4 --lora-rank 4 --save-every 2 -o models/old": "finished at iteration 4 of 4",
    'chat models/tiny --adapter-path models/old -p "It\'s a test" --max-tokens 4': "",
    "finetune models/tiny data/mine.jsonl --epochs 1 --lora-rank 4 --lora-alpha 8 -o models/tuned": "fused",
    "query -m models/tuned -p 'A quote \" and a test' --max-tokens 4": "",
    "test models/tiny data/mine.jsonl --metrics perplexity generation_quality --max-tokens 4 -o s.json": "perplexity",
    "list-templates": "advanced",
    "create-training-data -f instruction -s 20 -o data/started": "created 20 rows",
    "status": "2 models",
    "models": "tuned",
    "train-monitor --once": "ended: finished",
    "benchmark models/tiny --iterations 2 -p 'Once upon a time' --max-tokens 4": "2 trials",
    "update": "1 commit",
    "checkpoints": "models/old",
    "debug-checkpoints models/old --target-iters 4": "iteration",
}
"""What is typed from morning to evening, and what the answer has in it."""


@pytest.mark.slow
def test_a_real_day_of_all_commands_goes_by_the_older_spellings(
    mlxops: Typed, there: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.add(HUB_ID, tiny_model)
    clone = small_clone(tmp_path, monkeypatch)
    said: dict[str, tuple[int, str, str]] = {}

    for typed in DAY:
        if typed == "install-deps":
            monkeypatch.chdir("my-project")
            Path("data/mine.jsonl").write_text(lines([{"prompt": f"{n}?", "completion": f"{n}."} for n in range(12)]))
        if typed == "update":
            monkeypatch.setattr(sys, "prefix", str(Path(".venv").resolve()))
        said[typed] = mlxops(typed)

    assert [typed.split()[0] for typed in DAY] == list(OLD_COMMANDS)
    assert {typed: (code, err) for typed, (code, _, err) in said.items() if code} == {}
    assert {typed: out for typed, (_, out, err) in said.items() if DAY[typed] not in out + err} == {}
    assert json.loads(Path("s.json").read_text())["rows"] == 12
    assert len(Path("data/started/train.jsonl").read_text().splitlines()) == 16
    assert (clone / "CHANGELOG.md").read_text() == "# Changelog\n"


def small_clone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a small checkout that got a commit since, which is what runs; its wheels need no index."""
    upstream, clone = folder / "upstream", folder / "clone"
    write_wheels(folder / "wheels")
    write_checkout(upstream)
    (upstream / "mlxops" / "__main__.py").write_text(f"exec({(upstream / 'program.txt').read_text()!r})\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet"], cwd=upstream, check=True)
    for change in ("first", "second"):
        if change == "second":
            subprocess.run([*git, "clone", "--quiet", str(upstream), str(clone)], cwd=folder, check=True)
            (upstream / "CHANGELOG.md").write_text("# Changelog\n")
        subprocess.run([*git, "add", "--all"], cwd=upstream, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", change], cwd=upstream, check=True)
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder / "wheels")}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PATH", f"{UV.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(resources, "checkout", lambda: clone)
    return clone


@pytest.mark.slow
def test_on_the_old_text_the_first_loss_is_that_of_mlx_lm(old_project: Path) -> None:
    log = re.sub(r"\x1b\[[\d;]*m", "", (old_project / "training.log").read_text(encoding="utf-8"))
    theirs = re.search(r"^ +1 +val +([\d.]+)", log, re.MULTILINE)
    typed = next(step.typed for step in steps() if "lora models/NAME mlx_data" in step.typed)

    ended = shell(typed.replace("--iters 30", "--iters 1"))
    ours = shell("mlx-toolkit sql 'select validation_loss from loss_curve where iteration = 0' --format csv")

    assert (ended.returncode, ours.returncode) == (0, 0), ended.stdout + ours.stdout
    assert theirs
    assert float(ours.stdout.split()[1]) == pytest.approx(float(theirs[1]), abs=0.01)
