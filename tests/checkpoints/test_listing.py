"""The list of checkpoints and folders explained, held against what `lora` then really does."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import training_runs
from damage import flip, forget, remove, truncate
from listed_checkpoints import Program, explained, groups, typed
from ready_programs import run_forked
from training_runs import RUN, STEP, attempts, lora

from mlxops.registry import open_registry
from mlxops.training import lock

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a run of 13 that was killed in step 11."""
    project = training_runs.make_project(tmp_path_factory.mktemp("killed") / "project", tiny_model)
    ended = lora(project, *RUN, first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 11))
    assert ended.code == -signal.SIGKILL
    return project


@pytest.fixture
def project(tmp_path: Path, killed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, in a folder with a space in its name, which is the current one."""
    copy = Path(shutil.copytree(killed, tmp_path / "my trained", symlinks=True))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def folder(project: Path) -> Path:
    """The run's folder."""
    return project / "adapters" / "run"


def next_of(group: dict[str, Any]) -> int | None:
    return next((item["iteration"] for item in group["items"] if item["is_next"]), None)


# the list ------------------------------------------------------------------------------------------------------------


def test_the_list_has_every_checkpoint_with_all_that_is_known_of_it(mlxops: Program, project: Path) -> None:
    (group,) = groups(mlxops)
    files = sorted(path.name for path in (project / "adapters/run").glob("*_adapters.safetensors"))

    assert [item["file"] for item in group["items"]] == files
    assert {item["state"] for item in group["items"]} == {"whole"}
    assert (group["run"], group["target"], group["kind"]) == ("run", 13, "run")
    assert [item["iteration"] for item in group["items"] if item["is_offered"]] == [next_of(group)]
    assert sum(item["is_best"] for item in group["items"]) == 1
    assert group["seconds_kept"] > 0
    assert group["seconds_left"] > 0


def test_the_list_fits_80_columns_and_says_what_a_resume_takes(
    mlxops: Program, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    code, out, _ = mlxops("checkpoints")

    assert code == 0
    assert "a resume resumes from 10, the newest" in out or "a resume resumes from 8, the newest" in out
    rows = [line for line in out.splitlines() if " whole" in line]
    assert max(map(len, rows)) <= 80
    assert rows[-1].endswith("next")


@pytest.mark.parametrize("damage", [truncate, remove])
@pytest.mark.parametrize("which", ["adapters", "state"])
def test_what_the_list_calls_next_is_what_a_resume_takes(
    mlxops: Program, project: Path, folder: Path, which: str, damage: Callable[[str, Path], None]
) -> None:
    damage(f"{training_runs.newest_checkpoint(project, 'run'):07d}_{which}.safetensors", folder)

    (group,) = groups(mlxops)
    lora(project, *RUN)

    assert group["items"][-1]["state"] in ("damaged", "missing")
    assert attempts(project, "run")[-1]["from_iteration"] == next_of(group)


def test_a_finished_run_is_said_to_be_finished(mlxops: Program, project: Path) -> None:
    lora(project, *RUN)

    (group,) = groups(mlxops)

    assert (group["status"], group["next"]) == ("completed", "finished; raise `--iters` to train beyond 13")


def test_a_run_at_work_is_said_to_be_at_work(mlxops: Program, project: Path, folder: Path) -> None:
    with lock.hold(folder / lock.NAME, {}, what="the run"):
        (group,) = groups(mlxops)

    assert group["next"] == "a process is at work on it now"


def test_a_run_whose_folder_is_gone_says_so(mlxops: Program, project: Path, folder: Path) -> None:
    shutil.rmtree(folder)

    (group,) = groups(mlxops)

    assert {item["state"] for item in group["items"]} == {"missing"}
    assert group["next"] == "its folder is gone: it would start from iteration 0"


def test_folders_that_no_row_points_to_are_found_and_told_apart(mlxops: Program, project: Path, folder: Path) -> None:
    shutil.copytree(folder, project / "elsewhere" / "a copy")
    (project / "adapters/old").mkdir()
    shutil.copy(folder / "adapters.safetensors", project / "adapters/old")

    found = {group["folder"]: group["kind"] for group in groups(mlxops)}

    assert found == {"adapters/run": "run", "elsewhere/a copy": "unknown run", "adapters/old": "adapter"}


def test_without_the_registry_the_folders_tell(mlxops: Program, project: Path) -> None:
    forget(project)

    (group,) = groups(mlxops)
    lora(project, *RUN)

    assert (group["kind"], group["run"], group["target"]) == ("unknown run", "run", 13)
    assert attempts(project, "run")[-1]["from_iteration"] == next_of(group)


def test_a_custom_output_outside_the_project_is_listed(mlxops: Program, project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "other disk"
    (project / "adapters/run").rename(outside)
    with open_registry(project / "runs.db") as db:
        db.connection.execute("UPDATE runs SET adapter_path = ?", (str(outside),))

    (group,) = groups(mlxops)

    assert (group["folder"], group["items"][-1]["state"]) == (str(outside), "whole")


def test_a_path_lists_what_is_below_it_alone(mlxops: Program, project: Path, folder: Path) -> None:
    shutil.copytree(folder, project / "elsewhere" / "copy")

    assert [group["folder"] for group in groups(mlxops, "checkpoints --path elsewhere")] == ["elsewhere/copy"]
    assert [group["folder"] for group in groups(mlxops, "checkpoints --path adapters")] == ["adapters/run"]


def test_a_checkpoint_without_a_row_counts_as_a_resume_counts_it(mlxops: Program, project: Path) -> None:
    newest = training_runs.newest_checkpoint(project, "run")
    with open_registry(project / "runs.db") as db:
        db.connection.execute("DELETE FROM checkpoints WHERE iteration = ?", (newest,))

    (group,) = groups(mlxops)

    assert next_of(group) == newest
    assert group["next"].endswith("the newest, which has no row yet")


_AS_NOBODY = """
import sys, training_runs
from mlxops.__main__ import program
training_runs.obey_permissions()
sys.argv = ["mlx-toolkit", *sys.argv[1:]]
program.run()
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("checkpoints", "a resume resumes from"),
        ("debug-checkpoints", "continues: resumes from its checkpoint"),
        ("checkpoints --verify", "nothing of this is recorded"),
    ],
)
def test_a_project_that_cannot_be_written_can_be_read(project: Path, command: str, said: str) -> None:
    places = [project, project / "adapters/run", *project.glob("runs.db*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)

    code, out, err = run_forked("-c", _AS_NOBODY, *command.split())
    for place in places:
        place.chmod(0o755)

    assert (code, err) == (0, "")
    assert said in out


@pytest.mark.parametrize("command", ["checkpoints", "debug-checkpoints", "checkpoints --verify --run run"])
def test_a_run_whose_folder_may_not_be_read_is_named(project: Path, folder: Path, command: str) -> None:
    folder.chmod(0o000)

    code, out, err = run_forked("-c", _AS_NOBODY, *command.split())
    folder.chmod(0o755)

    assert "this is a bug" not in err
    assert code == int("--verify" in command)
    assert "may not be read by this user" in out or "Permission denied" in out


# folders explained ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state", "adapters"])
def test_the_explanation_sees_a_flipped_bit_and_decides_as_lora_does(
    mlxops: Program, project: Path, folder: Path, name: str
) -> None:
    newest = training_runs.newest_checkpoint(project, "run")
    flip(f"{newest:07d}_{name}.safetensors", folder)

    found = explained(mlxops, "debug-checkpoints adapters/run")
    lora(project, *RUN)

    assert found["set_aside"][0].startswith(f"iteration {newest}: ")
    assert found["decision"]["kind"] == "resume"
    assert attempts(project, "run")[-1]["from_iteration"] == found["decision"]["iteration"] < newest


def test_the_command_it_gives_goes_on_as_it_said(mlxops: Program, project: Path, tiny_model: Path) -> None:
    found = explained(mlxops, "debug-checkpoints adapters/run")

    ended = lora(project, *typed(found["command"]))

    assert ended.code == 0, ended.said
    assert attempts(project, "run")[-1]["from_iteration"] == found["decision"]["iteration"]
    training_runs.assert_exact(project, training_runs.straight(tiny_model, *RUN))


def test_the_command_works_for_a_copy_with_a_quote_in_its_name(mlxops: Program, project: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, project / "it's a copy"))

    found = explained(mlxops, f"debug-checkpoints {shlex.quote(copy.name)}")
    ended = lora(project, *typed(found["command"]))

    assert found["what"].startswith("a run's folder that no row of the registry points to")
    assert ended.code == 0, ended.said
    assert attempts(project, copy.name)[-1]["from_iteration"] == found["decision"]["iteration"]


@pytest.mark.parametrize(("target", "kind"), [(5, "finished"), (13, "resume"), (20, "resume")])
def test_a_target_is_decided_on_as_lora_does(mlxops: Program, project: Path, target: int, kind: str) -> None:
    found = explained(mlxops, f"debug-checkpoints adapters/run --target-iters {target}")

    ended = lora(project, *RUN, "--iters", str(target), "--preview", "--json")
    previewed = json.loads(ended.said[ended.said.index("{") :])

    assert found["decision"]["kind"] == kind == previewed["decision"]
    assert found["decision"]["reason"] == previewed["reason"]


def test_a_longer_course_of_the_learning_rate_is_refused_with_the_reason(mlxops: Program, project: Path) -> None:
    options = [*RUN[:2], "--name", "cosine", *RUN[4:], "--lr-schedule", "cosine_decay", "--iters", "5"]
    assert lora(project, *options).code == 0

    found = explained(mlxops, "debug-checkpoints adapters/cosine --target-iters 9")

    assert (found["decision"]["kind"], found["command"]) == ("refuse", None)
    assert "its learning rate runs over the whole training" in found["decision"]["hint"]


def test_everything_that_was_looked_at_is_shown(mlxops: Program, project: Path, folder: Path) -> None:
    newest = training_runs.newest_checkpoint(project, "run")

    code, out, _ = mlxops("debug-checkpoints adapters/run")

    assert code == 0
    for path in folder.iterdir():
        assert (path.name in out) == (path.name != ".lock")
    assert f"says iteration {newest}" in out
    assert "all numbers finite" in out
    assert "continues: resumes from its checkpoint at iteration" in out


def test_without_a_folder_all_of_the_project_are_explained(mlxops: Program, project: Path, folder: Path) -> None:
    shutil.copytree(folder, project / "elsewhere" / "copy")

    code, out, _ = mlxops("debug-checkpoints")
    by_flag = mlxops("checkpoints --debug")

    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines() if line.startswith(("adapters", "elsewhere"))] == [
        "adapters/run",
        "elsewhere/copy",
    ]
    assert by_flag[1] == out


def test_a_folder_without_an_adapter_is_said_to_be_none(mlxops: Program, project: Path) -> None:
    found = explained(mlxops, "debug-checkpoints data")

    assert (found["what"], found["command"]) == ("no adapter's folder", None)


def test_explaining_changes_nothing(mlxops: Program, project: Path, folder: Path) -> None:
    flip(f"{training_runs.newest_checkpoint(project, 'run'):07d}_state.safetensors", folder)
    before = training_runs.contents(folder)

    mlxops("debug-checkpoints")

    assert training_runs.contents(folder) == before
