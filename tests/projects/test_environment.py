"""What is decided about a virtual environment, and what the installer is told."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mac
import pytest
from commands import ROOT

from mlxops.errors import Failed, Refused
from mlxops.projects import entering, environment, environment_plan, pip
from mlxops.projects.environment_plan import Found, Wanted

HERE = {"prefix": "/usr", "version": "3.11.2", "minor": "3.11", "platform": "linux-x86_64", "is_old": False}
WORKS = {**HERE, "has_pip": True}
WANTED = Wanted(folder=ROOT / ".venv", source=ROOT, backend="cpu")
STAMP = {
    "state": "complete",
    "is_ours": True,
    "folder": str(WANTED.folder),
    "project": str(ROOT),
    "definition": "abc",
    "extras": [],
    "packages": ["mlx", "mlxops", "pip"],
    **HERE,
}
COMPLETE = Found(
    stamp=STAMP,
    python=WORKS,
    chosen=None,
    packages=frozenset({"mlx", "mlxops", "pip"}),
    has_more=False,
)
NOBODYS = replace(COMPLETE, stamp={})
EMPTY = replace(NOBODYS, python=None, packages=frozenset())


def stamped(**changes: Any) -> Found:
    return replace(COMPLETE, stamp={**STAMP, **changes})


def action(found: Found, wanted: Wanted = WANTED) -> str:
    return environment_plan.decide(found, wanted, "abc").action


@pytest.mark.parametrize(
    "found",
    [
        COMPLETE,
        replace(COMPLETE, packages=COMPLETE.packages | {"numpy"}),
        stamped(extras=["dev"]),
        stamped(version="3.11.9"),
    ],
    ids=["complete", "with a package of the person's", "with more extras", "of another patch release"],
)
def test_nothing_is_done_to_a_complete_environment(found: Found) -> None:
    assert action(found) == "nothing"


@pytest.mark.parametrize(
    "found",
    [
        stamped(definition="another pyproject.toml"),
        stamped(project="/elsewhere"),
        replace(COMPLETE, packages=frozenset({"mlxops", "pip"})),
        NOBODYS,
        replace(NOBODYS, python={**WORKS, "has_pip": False}),
        stamped(is_ours=False, state="filling"),
    ],
    ids=[
        "new requirements",
        "from another clone",
        "a package removed",
        "made by a person",
        "made without pip",
        "cut off in one made by a person",
    ],
)
def test_an_environment_that_fits_is_filled(found: Found) -> None:
    assert action(found) == "fill"


def test_a_missing_extra_is_added() -> None:
    assert action(COMPLETE, replace(WANTED, extras=frozenset({"dev"}))) == "fill"


BROKEN = {
    "its Python is gone": replace(COMPLETE, python=None),
    "its pip is gone": replace(COMPLETE, python={**WORKS, "has_pip": False}),
    "making it was cut off": replace(COMPLETE, stamp={"state": "making", "is_ours": True}),
    "an installation was killed": stamped(state="filling"),
    "its folder was moved": stamped(folder="/elsewhere/.venv"),
    "another Python is in its place": stamped(minor="3.12"),
    "it came from another machine": stamped(platform="macosx-14.0-arm64"),
    "it has the MLX of another backend": stamped(backend="cuda13"),
    "another Python was asked for": replace(COMPLETE, chosen={**WORKS, "minor": "3.13"}),
}


@pytest.mark.parametrize("found", BROKEN.values(), ids=BROKEN)
def test_a_broken_environment_of_ours_is_made_anew(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # uv installs without the environment's own pip

    assert action(found) == "remake"


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if not kind.endswith(("cut off", "killed", "pip is gone"))])
def test_a_broken_environment_that_a_person_made_is_left_alone(kind: str) -> None:
    broken = BROKEN[kind]

    assert action(replace(broken, stamp={**broken.stamp, "is_ours": False})) == "refuse"


def test_an_environment_of_an_old_python_that_holds_packages_is_left_alone() -> None:
    decision = environment_plan.decide(
        replace(NOBODYS, python={**WORKS, "is_old": True, "version": "3.9.1"}), WANTED, "abc"
    )

    assert (decision.action, decision.reason) == ("refuse", "its Python is 3.9.1")


def test_a_folder_that_is_no_environment_is_left_alone() -> None:
    assert action(replace(EMPTY, has_more=True)) == "refuse"


@pytest.mark.parametrize("packages", [set(), {"pip", "setuptools"}, {"pip", "mlxops"}], ids=["none", "pip", "ours"])
def test_a_broken_environment_without_packages_is_nobodys_loss(packages: set[str]) -> None:
    assert action(replace(EMPTY, packages=frozenset(packages))) == "remake"


@pytest.mark.parametrize("state", [None, [], "making", "filling", "complete", "of a later version"], ids=str)
def test_a_stamp_that_lacks_something_makes_no_environment_ours(state: Any, tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    (folder / "lib" / "python3.11" / "site-packages" / "numpy-2.0.dist-info").mkdir(parents=True)
    (folder / ".mlxops.json").write_text(json.dumps({"form": 1, "state": state}))

    with pytest.raises(Refused, match="was not made here"):
        environment.make(Wanted(folder=folder, source=ROOT), log=lambda _: None)


@pytest.fixture
def hidden(a_mac: mac.Mac, tmp_path: Path) -> Path:
    """A complete environment of a clone whose `.pth` file macOS hides."""
    site = tmp_path / ".venv" / "lib" / "python3.13" / "site-packages"
    (site / "mlxops-0.2.0.dist-info").mkdir(parents=True)
    (site / "_mlxops.pth").write_text(str(ROOT))
    (tmp_path / ".venv" / ".mlxops.json").write_text(json.dumps({"form": 1, **STAMP}))
    a_mac.hide(site / "_mlxops.pth")
    return tmp_path / ".venv"


def test_an_environment_whose_pth_files_macos_hides_is_not_ready_and_is_mended(
    hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "decide", lambda *_: environment_plan.Decision(action="nothing"))
    wanted, said = Wanted(folder=hidden, source=ROOT), list[str]()

    before = environment.is_ready(wanted)
    environment.make(wanted, log=said.append)

    assert (before, environment.is_ready(wanted)) == (False, True)
    assert said == ["macOS had hidden _mlxops.pth of .venv"]


def test_an_environment_that_is_entered_has_no_hidden_pth_files(hidden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    monkeypatch.setattr(os, "execv", lambda *_: seen.append(environment.hidden_files(hidden)))
    monkeypatch.setenv("MLXOPS_HANDED_OVER_TO", "")

    entering.enter(hidden / "bin" / "python", "mlxops")

    assert seen == [[]]


def test_what_macos_hides_while_it_is_installed_is_shown_again(
    hidden: Path, a_mac: mac.Mac, monkeypatch: pytest.MonkeyPatch
) -> None:
    pth, seen = hidden / "lib" / "python3.13" / "site-packages" / "_mlxops.pth", list[list[Path]]()

    def install(*_: object, **__: object) -> None:
        seen.append(environment.hidden_files(hidden))
        a_mac.hide(pth)
        seen.append(environment.hidden_files(hidden))

    monkeypatch.setattr(environment, "_ask", lambda python: WORKS)
    monkeypatch.setattr(environment, "decide", lambda *_: environment_plan.Decision(action="fill"))
    monkeypatch.setattr(pip, "install", install)
    environment.make(Wanted(folder=hidden, source=ROOT), log=lambda _: None)

    assert [*seen, environment.hidden_files(hidden)] == [[], [pth], []]


def test_another_version_of_the_system_makes_no_other_environment() -> None:
    about = environment._ask(Path(sys.executable))

    assert about is not None
    assert about["platform"] == f"{sys.platform}-{platform.machine()}"


def test_another_spelling_of_the_folder_is_the_same_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clone" / ".venv").mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").touch()
    one, other = tmp_path / "clone", tmp_path / "Clone"
    with mac.one_folder(one, other):
        typed = [Wanted(folder=each / ".venv", source=each) for each in (one, other)]
        stamp = {"form": 1, **STAMP, "folder": str(one / ".venv"), "project": str(one), "packages": []}
        stamp["definition"] = environment._definition(typed[0])
        (one / ".venv" / ".mlxops.json").write_text(json.dumps(stamp))
        monkeypatch.setattr(environment, "_ask", lambda python: WORKS)

        assert [environment.is_ready(each) for each in typed] == [True, True]


@pytest.mark.parametrize("place", [None, 7, ["x"]])
def test_a_stamp_whose_place_is_no_path_is_of_no_environment_here(tmp_path: Path, place: object) -> None:
    (tmp_path / "pyproject.toml").touch()
    wanted = Wanted(folder=tmp_path / ".venv", source=tmp_path)
    wanted.folder.mkdir()
    stamp = {"form": 1, **STAMP, "folder": place, "project": place, "packages": []}
    (wanted.folder / ".mlxops.json").write_text(json.dumps(stamp))

    assert not environment.is_ready(wanted)


def test_a_stamp_that_was_cut_off_is_nobodys_loss(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "..mlxops.json.0123abcd.partial").write_text("{")
    said: list[str] = []

    with pytest.raises(Failed, match="could not be made"):
        environment.make(Wanted(folder=folder, source=ROOT, python=Path("/bin/false")), log=said.append)

    assert said == ["making .venv with Python  (/bin/false)"]


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="every file can be locked here")
def test_a_file_that_cannot_be_locked_is_said_and_no_obstacle(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)  # only names the file, on any file system
    said: list[str] = []

    assert environment.take(descriptor, said.append) is False
    assert said == ["files cannot be locked here (Bad file descriptor), so run one installation at a time"]


# ------------------------------------------------------------------------------------------ what the installer is told


def test_a_clone_is_used_where_it_is() -> None:
    wanted = Wanted(folder=Path("/p/.venv"), source=Path("/a/clone"))

    assert environment_plan.steps(wanted, ["dev"]) == [["install", "--editable", "/a/clone/.[dev]"]]


def test_a_wheel_replaces_one_of_its_version() -> None:
    wanted = Wanted(folder=Path("/p/.venv"), source=Path("/a b/mlxops-1-py3-none-any.whl"), upgrade=True)

    assert environment_plan.steps(wanted, []) == [
        ["install", "--upgrade", "mlxops @ file:///a%20b/mlxops-1-py3-none-any.whl"],
        ["install", "--force-reinstall", "--no-deps", "/a b/mlxops-1-py3-none-any.whl"],
    ]


def test_a_light_environment_has_the_light_packages_and_no_dependencies() -> None:
    wanted = Wanted(folder=Path("/p/env"), source=Path("/mlxops-1-py3-none-any.whl"), light=("invoke>=3", "rich"))

    assert environment_plan.steps(wanted, []) == [
        ["install", "invoke>=3", "rich"],
        ["install", "--force-reinstall", "--no-deps", "/mlxops-1-py3-none-any.whl"],
    ]


def test_cuda_takes_the_other_library_out_and_puts_its_own_back() -> None:
    wanted = Wanted(folder=Path("/p/.venv"), source=Path("/a/clone"), backend="cuda13")

    first, *rest = environment_plan.steps(wanted, [])

    assert first == ["install", "mlx[cuda13]", "--editable", "/a/clone/."]
    assert rest == [["uninstall", "mlx-cpu"], ["install", "--force-reinstall", "--no-deps", "mlx-cuda-13"]]
