"""`--preview` ends with the exit code of the command, in every way that a command ends before its first step."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxops import layout, registry
from mlxops.jobs.train import claim
from mlxops.training import lock

COMMAND = "lora --model tiny --num-layers 2 --iters 2 --val-batches 0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a finished run, a copy of its folder, one that was imported, and a folder of mlx-lm."""
    import contextlib
    import os

    from mlxops.config import LoraConfig
    from mlxops.jobs.train import session
    from mlxops.projects.invocation import Invocation
    from mlxops.projects.project import Project

    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_model, root / "models" / "tiny")
    (root / "data").mkdir()
    rows = [json.dumps({"prompt": f"question {number}", "completion": f"answer {number}"}) for number in range(12)]
    (root / "data" / "train.jsonl").write_text("\n".join(rows))
    (root / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    config = LoraConfig(model="tiny", num_layers=2, iters=2, val_batches=0, name="heron")
    with contextlib.chdir(root):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        invocation = Invocation(
            project=Project.at(root), registry_is_given=False, blas=None, cache=None, command="lora"
        )
        with session.begin(session.check(invocation, config, lambda *_: None)) as run:
            run.work()
    run_folder = root / "adapters" / "heron"
    shutil.copytree(run_folder, root / "adapters" / "copy")
    theirs = root / "theirs"
    theirs.mkdir()
    shutil.copy(run_folder / layout.OFFERED, theirs)
    settings = json.loads((run_folder / layout.SETTINGS).read_text())
    del settings["mlxops"]
    (theirs / layout.SETTINGS).write_text(json.dumps(settings))
    return root


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = Path(shutil.copytree(trained, Path.cwd() / "project"))
    monkeypatch.chdir(root)
    return root


def bad_data(root: Path) -> str:
    (root / "data" / "train.jsonl").write_text("{\n")
    return ""


def name_that_could_be_given(root: Path) -> str:
    """The name of a run that is there, which no new run could have."""
    with registry.open_registry(root / "runs.db") as db:
        db.connection.execute("UPDATE runs SET name = 'a:b'")
    return "--name a:b"


ENDS: list[tuple[str | Callable[[Path], str], int]] = [
    ("", 0),
    ("--name heron", 0),
    ("--new", 0),
    ("--seed 1 --name heron", 3),
    ("--name HERON --seed 1", 3),
    ("--new --name heron", 3),
    ("--name copy", 3),
    ("--name heron --adapter-path elsewhere", 3),
    ("--adapter-path data", 3),
    ("--adapter-path theirs", 3),
    ("--adapter-path theirs --adopt theirs", 0),
    ("--adopt theirs --name heron", 3),
    ("--name latest", 2),
    ("--name a:b", 2),
    ("--name .hidden", 2),
    ("--name a/b", 2),
    ("--branch --from nothing", 2),
    ("--data missing", 2),
    (bad_data, 2),
    (name_that_could_be_given, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "expected"), ENDS, ids=[str(getattr(end, "__name__", end)) for end, _ in ENDS])
def test_a_preview_ends_with_the_exit_code_of_the_command(project, mlxops, options, expected):
    typed = options if isinstance(options, str) else options(project)

    previewed = mlxops(f"{COMMAND} {typed} --preview")[0]
    as_json = mlxops(f"{COMMAND} {typed} --preview --json")
    done = mlxops(f"{COMMAND} {typed}")[0]

    assert (previewed, as_json[0], done) == (expected, expected, expected)
    if as_json[1]:
        assert json.loads(as_json[1])["exit_code"] == expected


@pytest.mark.slow
def test_a_preview_of_a_run_at_work_is_busy_as_the_command_is(project, mlxops):
    with lock.hold(project / "adapters" / "heron" / lock.NAME, claim.holder("lora"), what="it"):
        previewed = mlxops(f"{COMMAND.replace('--iters 2', '--iters 3')} --name heron --preview")
        done = mlxops(f"{COMMAND.replace('--iters 2', '--iters 3')} --name heron")
        finished = [mlxops(f"{COMMAND} --name heron {option}")[0] for option in ("--preview", "")]

    assert (previewed[0], done[0]) == (3, 3)
    assert "the run 'heron' is being worked on by process" in " ".join(previewed[1].split())
    assert len(set(finished)) == 1


@pytest.mark.slow
def test_a_preview_knows_the_names_of_imported_runs(project, mlxops):
    with registry.open_registry(project / "runs.db") as db:
        db.connection.execute("UPDATE runs SET name = 'stork', imported_from = 'theirs', adapter_path = 'theirs'")
    shutil.rmtree(project / "adapters")

    ends = [mlxops(f"{COMMAND} --name Stork {option}")[0] for option in ("--preview", "")]

    assert ends == [3, 3]


@pytest.mark.slow
def test_a_preview_knows_a_run_whose_registry_is_gone(project, mlxops):
    shutil.rmtree(project / "adapters" / "copy")
    (project / "runs.db").unlink()

    previewed = mlxops(f"{COMMAND} --name heron --preview --json")
    done = mlxops(f"{COMMAND} --name heron")

    assert (previewed[0], done[0]) == (0, 0), previewed[2]
    assert json.loads(previewed[1])["decision"] == "finished"


@pytest.mark.slow
def test_a_refused_preview_says_so_and_the_next_task_is_not_run(project, mlxops):
    code, out, _ = mlxops(f"{COMMAND} --seed 1 --name heron --preview runs")

    assert code == 3
    assert "would be refused" in out
    assert "0 → 1" in out
