"""With the light packages alone, as a global installation has them, all works that needs no model."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from commands import ROOT
from linked_wheels import LIGHT, PROJECT, closure, normal
from packaging.requirements import Requirement

# Runs each command of a list in one process that has only these folders to import from.
_PROGRAM = """
import contextlib, io, json, os, sys
folders, commands = json.loads(sys.argv[1])
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + folders
from mlxops.__main__ import Toolkit
from mlxops.tasks import namespace
answers = {}
for command in commands:
    sys.argv = ["mlx-toolkit", *command.split("|")]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            Toolkit(name="mlx-toolkit", binary="mlx-toolkit", version="1", namespace=namespace).run()
        except SystemExit as ended:
            code = ended.code or 0
    answers[command] = [code, out.getvalue(), err.getvalue()]
print(json.dumps({"answers": answers, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""

WORK = [
    *("--help", "--list", "lora|--help", "list-templates", "init|new", "install-deps|--help"),
    *("models", "runs", "run.show|tuned", "run.list|--json", "sql|select name from runs", "sql|.queries"),
    *("run.note|tuned|--text|good", "download-model|user/name", "monitor|--once", "create-training-data|--output|more"),
    *("status", "status|--json", "doctor"),
]
NEED_MORE = [
    "lora|--model|tiny|--name|second",
    "chat|tiny|-p|hello",
    "model.info|tiny",
    "data.preview|--model|tiny",
    "checkpoints",
]


@pytest.fixture(scope="module")
def light_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of a global installation and no others."""
    folder = tmp_path_factory.mktemp("light")
    for distribution in closure(LIGHT).values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(str(distribution.locate_file(top)))
    return folder


def run(light_packages: Path, commands: list[str]) -> dict[str, object]:
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps([[str(light_packages), str(ROOT)], commands])],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_the_light_packages_are_dependencies_and_bring_nothing_heavy() -> None:
    dependencies = {normal(Requirement(each).name) for each in PROJECT["project"]["dependencies"]}

    assert dependencies >= LIGHT
    assert closure(LIGHT).keys() & {"mlx", "mlx-lm", "numpy", "transformers", "tokenizers", "torch"} == set()


@pytest.mark.slow
def test_what_needs_no_model_works_and_uses_each_light_package(light_packages: Path, tuned_project: Path) -> None:
    told = run(light_packages, WORK)

    answers = told["answers"]
    assert isinstance(answers, dict)
    assert {command: code for command, (code, _, _) in answers.items() if code != 0} == {"download-model|user/name": 1}
    assert answers["download-model|user/name"][2].startswith("HF_HUB_OFFLINE is set")
    assert "tuned" in answers["runs"][1]
    assert "tiny" in answers["models"][1]
    assert "─" in answers["monitor|--once"][1]
    assert "tiny" in answers["status"][1]
    assert json.loads(answers["status|--json"][1])["runs"]["counts"] == {"completed": 1}
    assert "checkpoints  " in answers["doctor"][1]
    assert not (tuned_project / "new" / ".venv").exists()
    assert "install-deps" in answers["init|new"][1]
    by_module = metadata.packages_distributions()
    loaded = told["loaded"]
    assert isinstance(loaded, list)
    assert {normal(name) for module in loaded for name in by_module.get(module, [])} >= LIGHT


@pytest.mark.slow
def test_what_needs_more_says_so_in_a_sentence_and_leaves_no_run(light_packages: Path, tuned_project: Path) -> None:
    told = run(light_packages, [*NEED_MORE, "quickstart|--tiny", "sql|select count(*) n from runs|--format|csv"])

    answers = told["answers"]
    assert isinstance(answers, dict)
    *refused, quickstart, (_, runs, _) = answers.values()
    assert (quickstart[0], quickstart[2].splitlines()[0]) == (
        1,
        "quickstart needs MLX, and this installation does without",
    )
    assert not (tuned_project / "quickstart").exists()
    assert runs.split() == ["n", "1"]
    for code, _, err in refused:
        assert (code, err.splitlines()[-2].partition(" the package")[0]) == (1, "this needs"), err
        assert err.endswith("hint: `mlx-toolkit install-deps` makes the project's own environment, which has it\n")
    assert not (tuned_project / ".mlxops").is_dir() or not any((tuned_project / ".mlxops").glob("crash-*"))
