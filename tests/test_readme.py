"""The README's commands do what it says. Those that install something are run by `.ci/run`, the others here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import ROOT
from ready_programs import ready_programs
from short_rows import shorten_rows

from mlxops.models import sample

SET_UP = ["./install.sh quickstart", "./install.sh test"]
WITH_A_NETWORK = [".venv/bin/python -m pip install 'mlxops[report]'"]


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in "".join(blocks).splitlines()]


def test_the_readme_has_the_two_commands() -> None:
    assert commands()[:2] == SET_UP


def test_the_picture_of_the_readme_is_there() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert pictures == ["docs/quickstart.svg"]
    assert "<svg" in (ROOT / pictures[0]).read_text(encoding="utf-8")


def test_no_command_of_a_page_has_a_comment_behind_it() -> None:
    """zsh, the shell of macOS, hands `# words` on to the command where one types or pastes it."""
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "db").glob("*.md"),
        *ROOT.glob("templates/**/*.md*"),
    ]
    block = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    indented = re.compile(r"^ {4}(?:[A-Z_]+=\S+ )*[a-z./][\w./-]* .*$", re.MULTILINE)
    comment = re.compile(r"^(?:.*[ \t])?# .*$", re.MULTILINE)

    texts = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages}
    blocks = {
        name: [part for language, part in block.findall(text) if language in ("", "sh", "console")]
        for name, text in texts.items()
    }
    found = {name: comment.findall("\n".join([*blocks[name], *indented.findall(text)])) for name, text in texts.items()}

    assert sum(map(len, blocks.values())) > 50
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.slow
def test_every_other_command_of_the_readme_does_its_work(tiny_model: Path, smollm2_gguf: Path, tmp_path: Path) -> None:
    place = sample.SMOLLM2.place(Path(os.environ["MLXOPS_CACHE"]))
    place.parent.mkdir(parents=True)
    place.symlink_to(smollm2_gguf)
    (tmp_path / ".venv").mkdir()
    with ready_programs(tmp_path / ".venv" / "bin"):
        run(".venv/bin/mlx-toolkit quickstart --tiny --iters 1", tmp_path)
        put_tiny_for_smollm2(tmp_path / "quickstart", tiny_model)
        shorten_rows(tmp_path / "quickstart" / "data")

        tried = [command for command in commands()[2:] if command not in WITH_A_NETWORK]
        ended = run("\n".join(["set -ex", *tried]), tmp_path)

    assert ended.returncode == 0, ended.stderr[-3000:]
    assert len(tried) > 15


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def put_tiny_for_smollm2(folder: Path, tiny_model: Path) -> None:
    """Have the project's model be called as the real one is, so that the README's commands find it."""
    shutil.copytree(tiny_model, folder / "models" / sample.NAME)
    settings = folder / "invoke.yaml"
    settings.write_text(settings.read_text().replace("model: tiny", f"model: {sample.NAME}"))
    (folder / ".mlxops" / "quickstart.json").write_text(json.dumps({"model": sample.NAME}))
