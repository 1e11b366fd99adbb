"""What folders that were copied, moved, made by others or left half-way mean to the next command."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import training_runs
from training_runs import STEP, lora, result

from mlxops import registry

pytestmark = pytest.mark.slow

SETTINGS = (
    "--model",
    "tiny",
    "--num-layers",
    "2",
    "--save-every",
    "4",
    "--steps-per-report",
    "3",
    "--steps-per-eval",
    "5",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a run that finished at 7, off the grids of reports and validations."""
    project = training_runs.make_project(tmp_path_factory.mktemp("finished") / "project", tiny_model)
    assert lora(project, *SETTINGS, "--name", "run", "--iters", "7").code == 0
    return project


@pytest.fixture
def project(tmp_path: Path, finished: Path) -> Path:
    """A copy of that project."""
    return Path(shutil.copytree(finished, tmp_path / "trained", symlinks=True))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def run_names(project: Path) -> list[str]:
    with registry.open_read_only(project / "runs.db") as db:
        return sorted(row["name"] for row in registry.list_runs(db))


def test_a_copy_of_a_runs_folder_goes_on_as_a_run_of_its_own(project: Path) -> None:
    shutil.copytree(project / "adapters" / "run", project / "adapters" / "copy")
    before = files(project / "adapters" / "run")

    ended = lora(project, *SETTINGS, "--adapter-path", "adapters/copy", "--iters", "9")

    assert ended.code == 0
    assert "extends to 9" in ended.said
    assert run_names(project) == ["copy", "run"]
    assert files(project / "adapters" / "run") == before


def test_a_copy_of_a_runs_folder_refuses_other_settings(project: Path) -> None:
    copy = Path(shutil.copytree(project / "adapters" / "run", project / "adapters" / "copy"))
    before = files(copy)

    ended = lora(project, *SETTINGS, "--adapter-path", "adapters/copy", "--iters", "9", "--seed", "99")

    assert (ended.code, files(copy)) == (3, before)
    assert "seed: was 0, now 99" in ended.said


def test_a_copy_that_nobody_asks_for_is_left_alone(project: Path) -> None:
    shutil.copytree(project / "adapters" / "run", project / "adapters" / "backup")

    ended = lora(project, *SETTINGS, "--iters", "7")

    assert (ended.code, run_names(project)) == (0, ["run"])


def test_a_runs_folder_that_was_renamed_is_found_again(project: Path) -> None:
    (project / "adapters" / "run").rename(project / "adapters" / "renamed")

    ended = lora(project, *SETTINGS, "--iters", "7")

    assert (ended.code, run_names(project)) == (0, ["run"])
    assert "already at iteration 7" in ended.said


@pytest.mark.parametrize("text", ['{"mlxops": {}}', '{"mlxops": {"name": "run"}}', "[]", "no JSON"])
def test_settings_that_describe_no_run_stop_nobody(project: Path, text: str) -> None:
    (project / "adapters" / "alien").mkdir()
    (project / "adapters" / "alien" / "adapter_config.json").write_text(text)

    assert lora(project, *SETTINGS, "--iters", "7").code == 0
    assert lora(project, *SETTINGS, "--name", "alien", "--iters", "7").code == 3


@pytest.mark.parametrize("place", ["models/tiny", "data", "."])
def test_a_folder_of_something_else_is_no_place_for_a_run(project: Path, place: str) -> None:
    before = sorted(path.name for path in (project / place).iterdir())

    ended = lora(project, *SETTINGS, "--new", "--adapter-path", place, "--iters", "2")

    assert ended.code == 3
    assert "no run's folder" in ended.said
    assert sorted(path.name for path in (project / place).iterdir()) == before


def test_an_extension_that_died_before_its_first_step_leaves_the_finished_run_to_be_had(project: Path) -> None:
    before = result(project, "run")
    died = lora(
        project, *SETTINGS, "--iters", "4000", first=partial(training_runs.signal_itself, signal.SIGKILL, STEP, 1)
    )

    ended = lora(project, *SETTINGS, "--iters", "7")

    assert (died.code, ended.code) == (-signal.SIGKILL, 0)
    assert "already at iteration 7" in ended.said
    assert result(project, "run") == before
