"""A project is found from any folder in it, and its paths outlive a move; the machine says what it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import mac
import pytest
from commands import run_python

from mlxops import system
from mlxops.errors import BadRequest, Failed
from mlxops.projects import checkout, machine
from mlxops.projects.project import Project, find
from mlxops.system import cgroup, host


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with an awkward name, seen from a folder in it."""
    root = tmp_path / "it's a “project” é"
    (root / "sub" / "folder").mkdir(parents=True)
    (root / "models" / "tiny").mkdir(parents=True)
    (root / "tasks.py").touch()
    return find(root / "sub" / "folder")


# Finding


def test_a_project_is_found_from_a_folder_in_it(project: Project, tmp_path: Path) -> None:
    assert project.root == tmp_path / "it's a “project” é"
    assert project.cwd == project.root / "sub" / "folder"
    assert project.registry_path == project.root / "runs.db"
    assert project.models_folder == project.root / "models"
    assert project.adapters_folder == project.root / "adapters"


@pytest.mark.parametrize(
    ("name", "content"),
    [("tasks.py", ""), ("runs.db", ""), ("invoke.yaml", "run:\n  echo: true\nmlxops:\n  lora: {}\n")],
)
def test_a_project_is_known_by(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_text(content)

    assert find(tmp_path / "sub").root == tmp_path


def test_settings_of_others_make_no_project(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "invoke.yaml").write_text("run:\n  mlxops: true\n")

    assert find(tmp_path / "sub").root == tmp_path / "sub"


def test_the_nearest_project_counts(project: Project) -> None:
    (project.root / "sub" / "runs.db").touch()

    assert find(project.cwd).root == project.root / "sub"


@pytest.mark.parametrize(
    ("registry", "setting", "expected"),
    [
        (None, None, "runs.db"),
        (None, "state/all.db", "state/all.db"),
        ("my.db", "state/all.db", "sub/folder/my.db"),
        ("../../up.db", None, "up.db"),
        ("", None, "runs.db"),
    ],
)
def test_the_registry_is_where_it_is_said_to_be(
    project: Project, registry: str | None, setting: str | None, expected: str
) -> None:
    found = find(project.cwd, registry=registry, registry_setting=setting)

    assert found.registry_path == project.root / expected


@pytest.mark.parametrize("given", [{"registry": "~nouser-here/x.db"}, {"registry_setting": "~nouser-here/x.db"}])
def test_a_registry_in_the_home_of_nobody_is_a_wrong_request(project: Project, given: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="there is no user"):
        find(project.cwd, **given)


# Paths


def test_a_path_in_the_home_of_nobody_is_a_wrong_request(project: Project) -> None:
    with pytest.raises(BadRequest, match="there is no user"):
        project.resolve("~nouser-here/x")
    with pytest.raises(BadRequest, match="there is no user"):
        project.from_root("~nouser-here/x")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (["sub/folder/tiny", "tiny", "models/tiny"], "sub/folder/tiny"),
        (["tiny", "models/tiny"], "tiny"),
        (["models/tiny"], "models/tiny"),
    ],
)
def test_a_path_is_searched_here_then_in_the_root_then_in_models(
    project: Project, made: list[str], expected: str
) -> None:
    for each in made:
        (project.root / each).mkdir(parents=True, exist_ok=True)

    assert project.resolve("tiny") == project.root / expected


def test_a_path_that_is_nowhere_is_made_here(project: Project) -> None:
    assert project.resolve("adapters/ñew run") == project.cwd / "adapters" / "ñew run"
    assert project.resolve("../../adapters") == project.root / "adapters"


def test_a_stored_path_is_found_again_after_a_move(project: Project, tmp_path: Path) -> None:
    stored = project.relative(project.resolve("tiny"))

    shutil.move(project.root, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "sub").mkdir(exist_ok=True)

    assert stored == "models/tiny"
    assert find(tmp_path / "elsewhere" / "sub").from_root(stored) == tmp_path / "elsewhere" / "models" / "tiny"


def test_a_link_out_of_the_project_is_stored_as_inside(project: Project, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (project.root / "models" / "linked").symlink_to(tmp_path / "large disk")

    assert project.relative(project.resolve("linked")) == "models/linked"


def test_a_path_through_a_link_to_the_project_is_inside(project: Project, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project.root)

    assert project.relative(tmp_path / "link" / "models" / "tiny") == "models/tiny"
    assert find(tmp_path / "link" / "sub").root == project.root


def test_a_path_outside_stays_absolute(project: Project, tmp_path: Path) -> None:
    assert project.relative(tmp_path / "other") == str(tmp_path / "other")
    assert project.from_root(str(tmp_path / "other")) == tmp_path / "other"


# The machine


def test_the_machine_says_what_it_is() -> None:
    facts = machine.facts()

    assert facts["host"]
    assert facts["boot_id"] == host.boot_id()
    assert 1 <= facts["available_cores"] <= (os.cpu_count() or 1)
    assert 0 < machine.free_memory() <= facts["memory"]
    assert 0 < machine.process_memory() < facts["memory"]
    assert 0 < machine.system_memory_percent() <= 100


def test_versions_are_read_without_importing() -> None:
    program = (
        "import sys\nfrom mlxops.projects import machine\nfound = machine.versions()\n"
        "print(sorted({'mlx', 'mlx-lm', 'mlxops'} - set(found)), 'mlx' in sys.modules)"
    )

    assert run_python("-c", program) == (0, "[] False\n", "")


def test_the_device_is_the_one_of_mlx() -> None:
    import mlx.core as mx

    device = machine.device()

    assert (device["kind"] == "gpu") == (mx.default_device() == mx.gpu)
    assert device["name"]


def test_free_disk_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    assert machine.free_disk(tmp_path / "not" / "yet") > 0


def test_keeping_awake_lets_the_work_through() -> None:
    with host.keep_awake(os.getpid()):
        done = True

    assert done


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MLXOPS_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        pytest.param(
            {"XDG_CACHE_HOME": "/x"}, "/x/mlxops", marks=pytest.mark.skipif(system.ON_MACOS, reason="not on macOS")
        ),
    ],
)
def test_the_cache_is_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert machine.user_cache(environment) == Path(expected)


def test_a_relative_cache_of_the_system_is_ignored() -> None:
    cache = machine.user_cache({"XDG_CACHE_HOME": "here"})

    assert cache is not None
    assert cache.is_relative_to(Path.home())


@pytest.mark.parametrize("home", ["", "here/and/there"])
def test_without_a_home_folder_there_is_no_cache(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("MLXOPS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.delenv("HOME")

    assert machine.user_cache({}) is None
    with pytest.raises(BadRequest, match="home folder is not known") as refused:
        machine.needed_cache(None)
    assert refused.value.hint == "set HOME, or MLXOPS_CACHE to a folder of yours"


def test_a_cache_in_the_home_of_nobody_is_a_wrong_request() -> None:
    with pytest.raises(BadRequest, match="no user 'nobody-at-all'"):
        machine.user_cache({"MLXOPS_CACHE": "~nobody-at-all/cache"})


def test_a_commit_is_named_and_changes_marked(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *settings, *words], check=True, capture_output=True)

    assert machine.git_commit(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = machine.git_commit(tmp_path)
    (tmp_path / "file").write_text("two")

    assert clean is not None
    assert len(clean) == 40
    assert machine.git_commit(tmp_path) == f"{clean}-dirty"


# Containers


def group(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A process and a tree of control groups."""
    (tmp_path / "cgroup").write_text(line + "\n")
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content)
    return tmp_path, tmp_path / "root"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        (
            "4:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/", {}, None),
    ],
)
def test_a_containers_processors_are_known(
    tmp_path: Path, line: str, files: dict[str, str], expected: float | None
) -> None:
    assert cgroup.cpu_limit(*group(tmp_path, line, files)) == expected


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 100\ninactive_file 50"}, 450),
        ("0::/", {"memory.max": "max", "memory.current": "600"}, None),
        ("9:memory:/", {"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "1600"}, 0),
    ],
)
def test_a_containers_memory_is_known(tmp_path: Path, line: str, files: dict[str, str], expected: int | None) -> None:
    assert cgroup.memory_left(*group(tmp_path, line, files)) == expected
    assert cgroup.memory_limit(*group(tmp_path, line, files)) == (None if expected is None else 1000)


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup.cpu_limit(tmp_path, tmp_path) is None
    assert cgroup.memory_left(tmp_path, tmp_path) is None
    assert cgroup.memory_limit(tmp_path, tmp_path) is None


def test_without_apples_developer_tools_git_is_not_called(a_mac: mac.Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    with_tools = machine.git()
    (a_mac.folder / "developer").unlink()
    without = machine.git()
    with pytest.raises(Failed, match="there is no git here"):
        checkout.run(a_mac.folder, "status")
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/opt/homebrew/bin/{name}")

    assert [with_tools, without, machine.git()] == ["/usr/bin/git", None, "/opt/homebrew/bin/git"]
