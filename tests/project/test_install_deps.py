"""`install-deps` makes a project's own environment with the real venv and pip, and says when there is nothing to do."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from small_checkouts import UV, write_checkout, write_wheels

from mlxops import resources, system
from mlxops.config import InstallDepsConfig
from mlxops.errors import BadRequest, Failed
from mlxops.jobs.project.install_deps import InstalledEnvironment, backend_for, install_deps
from mlxops.models.tiny import make_tiny
from mlxops.projects import environment
from mlxops.projects.environment_plan import Wanted
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone, whose wheels are found without an index."""
    write_wheels(tmp_path / "wheels")
    folder = tmp_path / "the clone"
    write_checkout(folder)
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "wheels")}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PATH", f"{UV.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


def install(source: Path | None, **options: bool | str) -> tuple[InstalledEnvironment, list[str]]:
    """What `install-deps` does in the current folder, and what it says."""
    said: list[str] = []
    project = Project.at(Path.cwd())
    return install_deps(Invocation(project=project), InstallDepsConfig(**options), source, said.append), said


def recorded() -> list[tuple[str, str]]:
    with closing(sqlite3.connect("runs.db")) as db, db:
        return db.execute("SELECT backend, lock FROM environments ORDER BY id").fetchall()


def test_a_project_gets_its_own_environment_once_and_it_is_recorded(source: Path, mlxops, monkeypatch) -> None:
    mlxops("init 'my project'")
    monkeypatch.chdir("my project")

    first, said = install(source)
    again, said_again = install(source)

    assert (first.was_up_to_date, again.was_up_to_date, said_again) == (False, True, [])
    assert said[0].startswith(".venv was a link")
    assert (Path(".venv").is_symlink(), Path(sys.prefix).is_dir()) == (False, True)
    lock = Path("requirements.lock").read_text().splitlines()
    assert "# mlxops==1" in lock
    assert [backend for backend, _ in recorded()] == ["none"]
    assert first.packages == len(lock) == len(recorded()[0][1].splitlines())


def test_more_is_installed_only_where_it_is_asked_for(source: Path) -> None:
    install(source)
    before = recorded()

    dev, _ = install(source, dev=True)
    upgraded, said = install(source, upgrade=True)

    assert (len(before), len(recorded())) == (1, 2)
    assert "pytest==1" in recorded()[-1][1]
    assert (dev.was_up_to_date, upgraded.was_up_to_date, any("installing" in line for line in said)) == (False,) * 2 + (
        True,
    )


def test_an_installation_that_failed_is_completed_by_the_next(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = (source / "backend.py").read_text()
    (source / "backend.py").write_text("raise RuntimeError('out of order')")
    with pytest.raises(Failed):
        install(source)
    (source / "backend.py").write_text(backend)

    made, _ = install(source)

    assert (made.was_up_to_date, environment.lock_of(Path(".venv")).count("mlxops==1")) == (False, 1)


def test_what_cannot_be_done_is_said_and_leaves_no_environment(source: Path) -> None:
    with pytest.raises(BadRequest, match="there is no Python 'python0'"):
        install(source, python="python0")
    with pytest.raises(Failed, match="neither a clone"):
        install(None)

    assert not Path(".venv").exists()


@pytest.mark.parametrize(
    ("says", "chosen"),
    [("580.65.06", "cuda13"), ("575.1", "cuda12"), ("470.82.01", "cpu"), ("no devices were found", "cpu"), ("", "cpu")],
)
def test_the_backend_is_the_newest_that_the_driver_can_run(
    says: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(system, "ON_MACOS", False)

    assert backend_for("auto", None) == chosen
    assert backend_for("auto", "cuda12") == "cuda12"


def test_a_backend_of_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_mac, asked in ((True, "cuda13"), (True, "cpu"), (False, "metal")):
        monkeypatch.setattr(system, "ON_MACOS", is_mac)
        with pytest.raises(BadRequest, match=f"no backend {asked}"):
            backend_for(asked, None)


def test_init_makes_the_environment_of_the_python_that_is_named(source: Path, mlxops, monkeypatch) -> None:
    monkeypatch.setattr(resources, "checkout", lambda: source)

    code, out, err = mlxops(f"init new --python {environment.own_python()} --json")

    assert (code, json.loads(out)["has_environment"]) == (0, True), err
    assert "making .venv with Python" in err
    assert not Path("new/.venv").is_symlink()
    assert mlxops("init other --python nothing-here")[0] == 2
    assert not Path("other").exists()


def test_a_project_is_entered_from_below_whatever_is_activated(tmp_path: Path, mlxops, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlxops("init 'my project' --no-env")
    project = tmp_path / "my project"
    make_tiny(project / "models" / "tiny")
    base = str(environment.own_python())
    subprocess.run([base, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    (packages,) = (project / ".venv").glob("lib/python*/site-packages")
    here = [path for path in [*os.environ["PYTHONPATH"].split(os.pathsep), *sys.path] if Path(path).is_dir()]
    (packages / "mlxops-for-this-test.pth").write_text("\n".join(here) + "\n")
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    activated = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "VIRTUAL_ENV": str(tmp_path / "other"),
        "PATH": f"{tmp_path / 'other' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    task = ["lora", "--model", "tiny", "--iters", "1", "--num-layers", "2", "--samples", "0", "--name", "entered"]

    # the tasks.py is what `inv` of an environment without mlxops loads
    program = "import runpy, sys; sys.argv[0] = 'inv'; runpy.run_path('../tasks.py')"
    trained = subprocess.run(
        [str(tmp_path / "other/bin/python"), "-c", program, *task],
        cwd=project / "data",
        env=activated,
        capture_output=True,
        text=True,
    )

    assert trained.returncode == 0, trained.stderr
    with closing(sqlite3.connect(project / "runs.db")) as db, db:
        assert db.execute("SELECT name, status FROM runs").fetchall() == [("entered", "completed")]
        (used,) = db.execute("SELECT json_extract(environment, '$.python') FROM attempts").fetchone()
    assert used == ".".join(map(str, sys.version_info[:3]))


def write_wheel(folder: Path, name: str, files: dict[str, str], *metadata: str) -> Path:
    """A wheel with these files, and a RECORD by which they are removed again."""
    stem = f"{name.replace('-', '_')}-1"
    there = {
        **files,
        f"{stem}.dist-info/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1", *metadata, ""]
        ),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in there.items():
            wheel.writestr(file, text)
        wheel.writestr(record, "".join(f"{file},,\n" for file in [*there, record]))
    return folder / f"{stem}-py3-none-any.whl"


def test_another_backend_takes_the_library_of_the_one_before_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras = ["Provides-Extra: cpu", "Provides-Extra: cuda13"]
    requires = ['Requires-Dist: mlx-cpu; extra == "cpu"', 'Requires-Dist: mlx-cuda-13; extra == "cuda13"']
    write_wheel(tmp_path, "mlx", {"mlx/core.py": ""}, *extras, *requires)
    for name in ("mlx-cpu", "mlx-cuda-13"):
        write_wheel(tmp_path, name, {"mlx/lib/libmlx.so": name})
    source = write_wheel(tmp_path, "mlxops", {"mlxops/__init__.py": ""}, "Requires-Dist: mlx[cpu]")
    monkeypatch.setenv("PATH", f"{UV.parent}:/usr/bin:/bin")
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    said: list[str] = []

    found = []
    for chosen in ("cpu", "cuda13"):
        wanted = Wanted(folder=tmp_path / "env", source=source, backend=chosen)
        environment.make(wanted, log=said.append)
        # made again it is of the same Python, whichever is at work then
        monkeypatch.setattr(environment, "own_python", lambda: Path("/nowhere/python"))
        (library,) = wanted.folder.glob("lib/python*/site-packages/mlx/lib/libmlx.so")
        found.append(
            (library.read_text(), "mlx-cpu==1" in environment.lock_of(wanted.folder), environment.is_ready(wanted))
        )

    assert found == [("mlx-cpu", True, True), ("mlx-cuda-13", False, True)]
    assert "env is made again: its MLX is that for cpu, and cuda13 was asked for" in said
