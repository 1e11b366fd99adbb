"""What Tab completes where a value is typed, whichever program and shell asks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run_python
from empty_registry import open_empty
from known_runs import new_run, settings

from mlxops import registry
from mlxops.tasks import completion, namespace

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture(autouse=True)
def project(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["mlx-toolkit"])
    shutil.copytree(tiny_model, "models/tiny")
    with open_empty(settings().project.registry_path) as db:
        for name in ("heron", "otter"):
            run = new_run(db, name)
            registry.change_tags(db, run.id, add=["fast" if name == "heron" else "night"], remove=[])
            for iteration in (20, 40):
                files = {"adapter_file": f"{iteration}", "state_file": None, "adapter_sha256": "", "state_sha256": None}
                registry.add_checkpoint(db, run.id, None, iteration=iteration, bytes=1, **files)
        registry.mark_checkpoint(db, run.id, 40, "pruned")
    return Path.cwd()


def words(line: str) -> list[str] | None:
    return completion.values(line.split(" "), namespace)


def test_a_value_is_completed_by_what_it_names() -> None:
    found = {
        line: words(line)
        for line in (
            "run.show he", "train.stop ", "run.compare heron,o", "lora --from heron:", "lora --branch-from=o",
            "lora --model ", "chat t", "lora t", "eval.compare tiny,h", "model.fuse h", "train.monitor --run l",
            "sql @endi", "sql .q", "lora --optimizer ad", "runs --status=c", "init --template ",
            "lora --iters 5 --model ti", "lora --grad-checkpoint --model ti",
            "chat --run otter:2", "checkpoints --use latest:l", "eval.compare tiny,heron:4", "runs --tag n",
            "run.tag heron --remove fast,n", "lora --tag=f", "test --metrics perplexity,gen", "runs --sort best_",
            "clean --what cr",
        )
    }  # fmt: skip

    assert found == {
        "run.show he": ["heron"],
        "train.stop ": ["otter", "heron", "latest"],
        "run.compare heron,o": ["heron,otter"],
        "lora --from heron:": ["heron:best", "heron:last", "heron:20", "heron:40"],
        "chat --run otter:2": ["otter:20"],
        "checkpoints --use latest:l": ["latest:last"],
        "eval.compare tiny,heron:4": ["tiny,heron:40"],
        "runs --tag n": ["night"],
        "run.tag heron --remove fast,n": ["fast,night"],
        "lora --tag=f": ["--tag=fast"],
        "test --metrics perplexity,gen": ["perplexity,generation_quality"],
        "runs --sort best_": ["best_train_loss", "best_validation_loss", "best_iteration"],
        "clean --what cr": ["crashes"],
        "lora --branch-from=o": ["--branch-from=otter"],
        "lora --model ": ["tiny"],
        "chat t": ["tiny"],
        "lora t": ["tiny"],
        "eval.compare tiny,h": ["tiny,heron"],
        "model.fuse h": ["heron"],
        "train.monitor --run l": ["latest"],
        "sql @endi": ["@endings"],
        "sql .q": [".queries"],
        "lora --optimizer ad": ["adam", "adamw", "adafactor"],
        "runs --status=c": ["--status=created", "--status=completed"],
        "init --template ": ["basic", "advanced"],
        "lora --iters 5 --model ti": ["tiny"],
        "lora --grad-checkpoint --model ti": ["tiny"],
    }


def test_a_value_that_only_the_shell_knows_has_no_candidates() -> None:
    assert {line: words(line) for line in ("data.check da", "lora --data da", "lora --iters ", "run.show none")} == {
        "data.check da": [],
        "lora --data da": [],
        "lora --iters ": [],
        "run.show none": [],
    }


def test_tasks_and_options_are_left_to_invoke() -> None:
    lines = ("", "lo", "lora --mo", "lora -", "help lo", "runs ", "lora tiny data ", "no-such-task x")

    assert {line: words(line) for line in lines} == dict.fromkeys(lines)


def test_under_inv_the_bare_words_of_the_older_toolkit_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inv"])

    assert words("lora t") is None
    assert words("chat t") == ["tiny"]


def test_a_registry_that_cannot_be_read_costs_only_its_names(project: Path) -> None:
    (project / "runs.db").write_bytes(b"no database at all" * 100)

    assert words("run.show he") == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["mlxops", "invoke"])
def test_both_programs_answer_a_shell(project: Path, module: str) -> None:
    (project / "tasks.py").write_text("from mlxops.tasks import namespace\n")

    assert run_python("-m", module, "--complete", "--", "program", "run.show", "ot") == (0, "otter\n", "")
