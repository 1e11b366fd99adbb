"""A run under another name: row, folder and all that names them move together, and no kill makes two runs of one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from empty_registry import open_empty
from known_runs import begin, folder_of, new_run, settings, train
from ready_programs import run_forked
from training_runs import copy_project, lora, straight_project

from mlxops import registry
from mlxops.adapters import adapter_config
from mlxops.config import RenameConfig
from mlxops.jobs.run import rename
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.training import lock

Typed = Callable[[str], tuple[int, str, str]]
SETTINGS = (
    *("--model", "tiny", "--num-layers", "1", "--batch-size", "2", "--save-every", "4", "--val-batches", "0"),
    *("--learning-rate", "0.003", "--lora-dropout", "0.1"),
)


@pytest.fixture
def heron() -> Path:
    """The folder of the run `heron`, which has trained and was evaluated; `otter` stands beside it."""
    with open_empty(settings().project.registry_path) as db:
        run = train(db, "heron", [(10, 3.0), (20, 2.0)], config={"name": "heron"}, fingerprint="x")
        folder = folder_of(db, run)
        folder_of(db, train(db, "otter", [(10, 3.0)]))
        registry.record_evaluation(
            db,
            run_id=run.id,
            iteration=8,
            model="models/tiny",
            adapter_path=f"{run.adapter_path}/0000008_adapters.safetensors",
            data="data",
            data_sha256="x",
            kind="answers",
            config={},
            answers=[],
        )
    (folder.parent / "latest").symlink_to("heron")
    return folder


def rows(sql: str) -> list[dict[str, object]]:
    with registry.open_read_only(Path("runs.db")) as db:
        return db.rows(sql)


def test_row_and_folder_and_what_names_them_move_together(heron: Path, mlxops: Typed) -> None:
    files = {each.name for each in heron.iterdir()}

    code, out, err = mlxops("run.rename heron 'tern é' --json")

    moved = heron.with_name("tern é")
    assert (code, json.loads(out)) == (
        0,
        {"run": "tern é", "was": "heron", "folder": "adapters/tern é", "is_moved": True, "notes": []},
    ), err
    assert (heron.exists(), {each.name for each in moved.iterdir()} - {lock.NAME}) == (False, files - {lock.NAME})
    assert rows("SELECT name, adapter_path, config ->> '$.name' AS said FROM runs WHERE id = 1") == [
        {"name": "tern é", "adapter_path": "adapters/tern é", "said": "tern é"}
    ]
    assert rows("SELECT adapter_path FROM evaluations") == [
        {"adapter_path": "adapters/tern é/0000008_adapters.safetensors"}
    ]
    assert rows("SELECT kind, message FROM events WHERE kind = 'renamed'") == [
        {"kind": "renamed", "message": "renamed from heron to tern é"}
    ]
    assert Path("adapters/latest").readlink() == Path("tern é")
    assert mlxops("run.show heron")[0] == 2
    assert mlxops("run.show tern")[0] == 0


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("otter", 3, "there is a run 'otter' already"),
        ("OTTER", 3, "there is a run 'otter' already"),
        ("a/b", 2, "cannot be the name of a run: it has '/'"),
        ("latest", 2, "it stands for the newest run"),
        ("taken", 3, "'adapters/taken' is there already"),
    ],
)
def test_a_name_that_cannot_be_changes_nothing(heron: Path, mlxops: Typed, name: str, code: int, reason: str) -> None:
    (heron.parent / "taken").mkdir()

    answer = mlxops(f"run.rename heron {name}")

    assert (answer[0], reason in answer[2]) == (code, True), answer[2]
    assert [row["name"] for row in rows("SELECT name FROM runs")] == ["heron", "otter"]
    assert heron.is_dir()


def test_the_same_name_is_nothing_to_do_and_another_case_is_another_name(heron: Path, mlxops: Typed) -> None:
    same, other = mlxops("run.rename heron heron"), mlxops("run.rename heron Heron")

    assert (same[0], "nothing to do" in same[1]) == (0, True)
    assert (other[0], heron.with_name("Heron").is_dir()) == (0, True), other[2]


def test_a_run_at_work_keeps_its_name(mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        run = new_run(db, "heron")
        begin(db, run)
        child = new_run(db, "chick", parent_id=run.id, branch_iteration=0)
        new_run(db, "otter")
    Path("adapters/otter").mkdir(parents=True)
    with lock.hold(Path("adapters/otter") / lock.NAME, {"pid": 1, "host": "h", "since": "s"}, what="it"):
        held = mlxops("run.rename otter tern")
    working = mlxops("run.rename heron tern")

    assert child.name == "chick"
    assert (held[0], "is being worked on by process 1" in held[2]) == (3, True), held[2]
    assert (working[0], "is at work" in working[2], "`mlx-toolkit train.stop heron`" in working[2]) == (3, True, True)


def test_a_folder_with_a_name_of_its_own_stays(mlxops: Typed) -> None:
    with registry.open_registry(settings().project.registry_path) as db:
        new_run(db, "heron", adapter_path="out/mine")
    Path("out/mine").mkdir(parents=True)

    code, out, _ = mlxops("run.rename heron tern")

    assert (code, out.splitlines()) == (
        0,
        ["heron is now tern, in out/mine", "its folder out/mine has a name of its own and stays"],
    )
    assert Path("out/mine").is_dir()


def test_a_folder_that_cannot_be_moved_leaves_the_row_as_it_was(
    heron: Path, mlxops: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        code, _, err = mlxops("run.rename heron tern")

    assert (code, "cannot be renamed: Permission denied" in err) == (1, True), err
    assert [row["name"] for row in rows("SELECT name FROM runs")] == ["heron", "otter"]
    assert heron.is_dir()


@pytest.mark.slow
def test_a_kill_between_folder_and_row_leaves_one_run_which_the_same_command_completes(
    heron: Path, mlxops: Typed
) -> None:
    die = "import os, sys; from mlxops import files; files.sync = lambda path: os._exit(9); "
    ended, *_ = run_forked(
        "-c",
        f"{die}sys.argv = ['mlx-toolkit', 'run.rename', 'heron', 'tern']; from mlxops.__main__ import main; main()",
    )
    between = rows("SELECT name, adapter_path FROM runs WHERE id = 1")
    code, out, err = mlxops("run.rename heron tern")

    assert ended == 9
    assert between == [{"name": "heron", "adapter_path": "adapters/heron"}]
    assert (code, out) == (0, "heron is now tern, in adapters/tern\n"), err
    assert rows("SELECT name, adapter_path FROM runs WHERE id = 1") == [
        {"name": "tern", "adapter_path": "adapters/tern"}
    ]
    assert (heron.exists(), heron.with_name("tern").is_dir()) == (False, True)


@pytest.mark.slow
def test_a_renamed_run_and_a_branch_of_it_resume_exactly(tmp_path: Path, tiny_model: Path) -> None:
    straight = straight_project(tiny_model, *SETTINGS, "--name", "run", "--iters", "13")
    project = copy_project(
        straight_project(tiny_model, *SETTINGS, "--name", "run", "--iters", "8"), tmp_path / "project"
    )
    branch = (*SETTINGS, "--branch", "--from", "run:4", "--seed", "7", "--name", "child")
    first = lora(project, *branch, "--iters", "6")
    with contextlib.chdir(project):
        rename.rename(Invocation(project=Project.at(project), command="inv"), RenameConfig(name="run", to="tern"))

    resumed = lora(project, *SETTINGS, "--name", "tern", "--iters", "13")
    again = lora(project, *SETTINGS, "--name", "child", "--seed", "7", "--iters", "9")
    (project / "runs.db").rename(project / "gone.db")  # the folders alone say the same
    from_folders = lora(project, *SETTINGS, "--name", "child", "--seed", "7", "--iters", "9")

    assert [each.code for each in (first, resumed, again, from_folders)] == [0] * 4, resumed.said + again.said
    name = "0000013_adapters.safetensors"
    assert (project / "adapters/tern" / name).read_bytes() == (straight / "adapters/run" / name).read_bytes()
    described = adapter_config.describes_itself(project / "adapters/child")
    assert described is not None
    assert (described["config"]["origin"]["run"], described["config"]["origin"]["folder"]) == ("tern", "adapters/tern")
    with registry.open_read_only(project / "runs.db") as db:
        assert {row["name"]: row["parent"] for row in registry.list_runs(db)} == {"tern": None, "child": "tern"}
