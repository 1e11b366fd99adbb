"""The pages of help: groups and examples, the width of the terminal, and a pager where it is too short."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended

from mlxops.config import LoraConfig
from mlxops.options import options_of

Typed = Callable[..., Ended]
GROUPS = [
    "model and data", "adapter", "optimizer", "batches", "watching and saving", "starting and resuming", "output",
    "accepted for compatibility with mlx-lm",
]  # fmt: skip


def test_the_options_of_lora_stand_in_groups_below_two_examples(mlxops: Typed) -> None:
    lines = mlxops("help lora")[1].splitlines()

    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles == ["mlx-toolkit lora [--options]", "examples", *GROUPS]
    assert len([line for line in lines if line.startswith("  mlx-toolkit lora ")]) == 2


def test_every_option_stands_once_on_the_page(mlxops: Typed) -> None:
    out = mlxops("help lora")[1]

    shown = [line.split()[0].rstrip(",") for line in out.splitlines() if line.startswith("  --")]
    typed = [each.flag for each in options_of(LoraConfig) if each.on_command_line]
    assert [flag.replace("--[no-]", "--") for flag in shown] == [flag.replace("--no-", "--") for flag in typed]


def test_the_examples_are_typed_right(mlxops: Typed) -> None:
    said = [mlxops(example)[2].splitlines()[0] for example in LoraConfig.EXAMPLES]

    # every word was understood: what is missing is the data, and the recipe
    assert said == ["no data at data", f"there is no recipe {str(Path.cwd() / 'recipe.yaml')!r}"]


@pytest.mark.parametrize("width", [80, 200])
def test_a_page_of_help_fits_the_terminal(mlxops: Typed, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    pages = [mlxops(f"help {name}")[1] for name in ("lora", "sql", "checkpoints")]

    assert max(len(line) for page in pages for line in page.splitlines()) <= width


def test_the_list_of_tasks_shows_each_task_once(mlxops: Typed) -> None:
    names = [line.split()[0] for line in mlxops("")[1].splitlines() if line.startswith("  ")]

    assert len(names) == len(set(names))
    assert "train-monitor" not in names


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "is_paged"), [(24, True), (200, False)])
def test_help_goes_through_a_pager_on_a_terminal_that_is_too_short(lines: int, is_paged: bool) -> None:
    ours, theirs = os.openpty()
    environment = {"COLUMNS": "80", "LINES": str(lines), "TERM": "xterm", "PAGER": "echo paged; cat > /dev/null"}
    subprocess.run(
        [sys.executable, "-m", "mlxops", "lora", "--help"],
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, **environment},
        check=True,
    )
    os.close(theirs)

    assert (b"paged" in os.read(ours, 1 << 16)) is is_paged
