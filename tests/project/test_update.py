"""`update` takes a real clone forward and upgrades a real package, and loses no change of anybody's."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import mac
import pytest
from registry_rows import new_attempt, new_run, report
from small_checkouts import write_checkout, write_wheels

from mlxops import registry, resources
from mlxops.errors import Busy, Failed, MlxopsError, Refused
from mlxops.jobs.project import update as job
from mlxops.jobs.project.update import Installation
from mlxops.projects import changelog, checkout, environment
from mlxops.projects.checkout import Checkout
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.ui.project import update as drawing
from mlxops.ui.terminal import console as consoles

OLD = "# Changelog\n\n## Unreleased\n\n### Added\n\n- Old.\n"
NEW = "# Changelog\n\n## Unreleased\n\n### Added\n\n- New, told in\n  two lines.\n- Old.\n\n### Fixed\n\n- A fault.\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip()


def commit(folder: Path, **files: str) -> None:
    """Commit files, named with _ for the dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")


def write_version(folder: Path, version: str) -> None:
    (folder / "mlxops").mkdir(exist_ok=True)
    (folder / "mlxops" / "__init__.py").write_text(f'__version__ = "{version}"\n')


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with a version and a changelog."""
    folder = tmp_path / "up stream"
    folder.mkdir()
    git(folder, "init", "--quiet")
    write_version(folder, "1")
    commit(folder, CHANGELOG_md=OLD, notes_txt="as it was\n")
    return folder


@pytest.fixture
def clone(upstream: Path, tmp_path: Path) -> Path:
    """A clone of it, after which it got two commits."""
    folder = tmp_path / "the clone"
    git(tmp_path, "clone", "--quiet", upstream.as_uri(), str(folder))
    commit(upstream, notes_txt="changed\n")
    write_version(upstream, "2")
    commit(upstream, CHANGELOG_md=NEW)
    return folder


@pytest.fixture
def invocation() -> Invocation:
    return Invocation(project=Project.at(Path.cwd()))


def nothing(line: str) -> None:
    """Progress that nobody reads."""


# what is new, and whether it may be had ------------------------------------------------------------------------------


def test_the_news_are_the_entries_that_only_the_later_changelog_has() -> None:
    assert changelog.news(OLD, NEW) == ("Added: New, told in two lines.", "Fixed: A fault.")
    assert changelog.news(NEW.replace("told in\n  two", "told\n  in two"), NEW) == ()
    assert changelog.news("", OLD) == ("Added: Old.",)
    assert changelog.news(NEW, "") == ()


def test_what_could_be_lost_is_refused_and_named() -> None:
    usual = Checkout(folder="/c", branch="main", upstream="origin/main", commit="a", upstream_commit="b", behind=2)
    table: list[tuple[dict[str, object], str | None]] = [
        ({}, None),
        ({"behind": 0, "ahead": 3, "changed": ("a.py",)}, None),
        (
            {"changed": ("a.py", "b.py", "c.py", "d.py")},
            "has changes that are in no commit: a.py, b.py, c.py and 1 more",
        ),
        ({"ahead": 3}, "have diverged: 3 of its commits are not there"),
        ({"branch": None}, "has a commit checked out, and no branch"),
        ({"upstream": None}, "follows none upstream"),
    ]

    found = [checkout.obstacle(replace(usual, **changes)) for changes, _ in table]  # type: ignore[arg-type]

    assert [each is None for each in found] == [said is None for _, said in table]
    assert all(
        said in each.message and each.hint for each, (_, said) in zip(found, table, strict=True) if each and said
    )


def test_a_clone_says_what_is_upstream_and_goes_forward_to_it(clone: Path, upstream: Path) -> None:
    before = checkout.look(clone)
    checkout.fetch(clone)
    fetched = checkout.look(clone)
    (clone / "mine.txt").write_text("kept")
    checkout.go_forward(fetched)
    after = checkout.look(clone)

    assert (before.behind, fetched.behind, after.behind) == (0, 2, 0)
    assert changelog.news(fetched.changelog, fetched.upstream_changelog)[1] == "Fixed: A fault."
    assert after.commit == git(upstream, "rev-parse", "HEAD")
    assert ((clone / "mine.txt").read_text(), (clone / "notes.txt").read_text()) == ("kept", "changed\n")


@pytest.mark.slow
def test_nothing_of_a_persons_is_lost(clone: Path, upstream: Path) -> None:
    def state() -> tuple[str, str, str]:
        return git(clone, "rev-parse", "HEAD"), git(clone, "status", "--porcelain"), git(clone, "diff")

    def refused() -> tuple[type[MlxopsError], str]:
        before = state()
        checkout.fetch(clone)
        found = checkout.look(clone)
        with pytest.raises(MlxopsError) as error:
            checkout.go_forward(found)
        assert state() == before
        return type(error.value), error.value.message

    commit(upstream, mine_txt="theirs")
    (clone / "mine.txt").write_text("mine")
    in_the_way = refused()
    (clone / "mine.txt").unlink()
    (clone / "notes.txt").write_text("changed by me\n")
    dirty = refused()
    commit(clone)
    diverged = refused()
    git(clone, "checkout", "--quiet", "--detach")
    detached = refused()
    git(clone, "switch", "--quiet", "--create", "own")
    own = refused()

    assert [kind for kind, _ in (in_the_way, dirty, diverged, detached, own)] == [Failed, *[Refused] * 4]
    assert "would be overwritten" in in_the_way[1]
    assert "notes.txt" in dirty[1]
    assert "diverged" in diverged[1]
    assert "no branch" in detached[1]
    assert "follows none" in own[1]


def test_a_folder_that_is_no_clone_and_an_upstream_that_is_gone_are_a_sentence(clone: Path, tmp_path: Path) -> None:
    (clone / "below").mkdir()
    for folder in (tmp_path, clone / "below"):
        with pytest.raises(Failed, match="is no git clone"):
            checkout.look(folder)
    (tmp_path / "up stream").rename(tmp_path / "elsewhere")
    with pytest.raises(Failed, match=r"git fetch: '.*' does not appear to be a git repository") as error:
        checkout.fetch(clone)

    assert error.value.hint is not None


# the command ---------------------------------------------------------------------------------------------------------


def test_check_shows_what_is_new_and_changes_nothing(mlxops, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "checkout", lambda: clone)
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))  # one in which no other test trains
    before = git(clone, "rev-parse", "HEAD"), sorted(clone.rglob("[!.]*.*"))

    code, out, err = mlxops("update --check")
    as_json = json.loads(mlxops("update --check --json")[1])
    (clone / "notes.txt").write_text("mine\n")
    refused = mlxops("update")

    assert (code, err) == (0, f"fetching what is new for {clone}\n")
    assert out.splitlines()[1:] == ["  - Added: New, told in two lines.", "  - Fixed: A fault."]
    assert re.match(r"mlxops 1 \(\w+\) → 2 \(\w+\), 2 commits\n", out)
    assert (as_json["commits"], as_json["is_up_to_date"], len(as_json["news"])) == (2, False, 2)
    assert (refused[0], "has changes that are in no commit: notes.txt" in refused[2]) == (3, True)
    assert (git(clone, "rev-parse", "HEAD"), sorted(clone.rglob("[!.]*.*"))) == before


def test_a_run_at_work_is_not_updated_under_and_unfinished_ones_are_named(clone: Path, invocation: Invocation) -> None:
    found = Installation(environment=clone / ".venv", clone=clone)
    with registry.open_registry(Path("runs.db")) as db:
        begun, heron = new_run(db, "otter"), new_run(db, "heron")
        attempt = new_attempt(db, heron.id)
        report(db, heron.id, attempt, 10, train_loss=1.0)
        registry.end_attempt(db, attempt, reason="stopped", status="interrupted", iteration=10)
        attempt = new_attempt(db, begun.id)
        at_work = job.look(invocation, found, nothing)
        registry.end_attempt(db, attempt, reason="finished", status="completed", iteration=100)

    assert (at_work.at_work, at_work.unfinished) == (("otter",), ("heron",))
    with pytest.raises(Busy, match="otter: at work"):
        job.check(at_work, found)
    assert job.look(invocation, found, nothing).at_work == ()


def test_a_training_of_another_project_with_the_same_code_is_at_work_too(
    clone: Path, invocation: Invocation, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = Installation(environment=Path(sys.executable).parent.parent, clone=clone)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    both = [
        subprocess.Popen([*command, "mlx-toolkit", task], cwd=elsewhere, stdin=subprocess.PIPE)
        for task in ("lora", "monitor")
    ]
    at_work = job.look(invocation, found, nothing).at_work
    for each in both:
        each.communicate()

    mine = [said for said in at_work if said.endswith(str(elsewhere))]
    assert mine == [f"process {both[0].pid} in {elsewhere}"]


def test_an_environment_of_the_clone_is_one_under_another_spelling_of_its_folder(
    invocation: Invocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, theirs = tmp_path / "Clone", tmp_path / "clone", tmp_path / "env"
    one.mkdir()
    theirs.mkdir()
    stamp = {"form": 1, "state": "made", "is_ours": True, "folder": "", "minor": "", "platform": ""}
    (theirs / ".mlxops.json").write_text(json.dumps({**stamp, "project": str(other)}))
    monkeypatch.setattr(job.process, "trainings", lambda uses_it: [(7, tmp_path)] if uses_it(theirs) else [])
    found = Installation(environment=tmp_path / "ours", clone=one)

    before = job._elsewhere(invocation, found)
    with mac.one_folder(one, other):
        assert (before, job._elsewhere(invocation, found)) == ((), (f"process 7 in {tmp_path}",))


def test_what_was_done_says_what_becomes_of_unfinished_runs() -> None:
    def said(changed: tuple[str, ...]) -> str:
        screen = consoles.make(file=io.StringIO(), width=80)
        done = job.Updated(before="1", after="2", news=(), changed=changed, unfinished=("heron",))
        drawing.done(done, screen)
        return screen.file.getvalue()  # type: ignore[attr-defined]

    assert "unfinished runs resume, named inexact since these versions changed, by the settings" in said(("mlx 1 → 2",))
    assert "unfinished runs resume exactly, by the settings they stored: heron" in said(())
    assert ".mlxops/backups" in said(())


# with a real environment ---------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in place of an index."""
    write_wheels(tmp_path / "wheels")
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "wheels")}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return tmp_path / "wheels"


def make_environment(folder: Path) -> None:
    """A virtual environment with pip, which is that of this Python where it has one: to install it takes seconds."""
    there = importlib.util.find_spec("pip")
    options = ["--without-pip"] if there else []
    subprocess.run([environment.own_python(), "-m", "venv", *options, folder], check=True)
    if there and there.origin:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "pip").symlink_to(Path(there.origin).parent)


def write_package(wheels: Path, version: str) -> Path:
    file = wheels / f"mlxops-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("mlxops/__init__.py", f'__version__ = "{version}"\n')
        wheel.writestr(
            f"mlxops-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: mlxops\nVersion: {version}\n"
        )
        wheel.writestr(
            f"mlxops-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"mlxops-{version}.dist-info/RECORD", f"mlxops-{version}.dist-info/RECORD,,\n")
    return file


@pytest.mark.slow
def test_a_package_is_upgraded_and_a_clone_is_installed_again(
    tmp_path: Path, offline: Path, invocation: Invocation
) -> None:
    folder, upstream, clone = tmp_path / "environment", tmp_path / "up stream", tmp_path / "the clone"
    make_environment(folder)
    with zipfile.ZipFile(write_package(offline, "1.0")) as wheel:
        wheel.extractall(next(folder.glob("lib/python*/site-packages")))
    package = Installation(environment=folder)

    # a package
    newest = job.look(invocation, package, nothing)
    write_package(offline, "1.1")
    plan = job.look(invocation, package, nothing)
    unchanged = environment.lock_of(folder)
    upgraded = job.update(invocation, plan, package, nothing)
    with_package = environment.lock_of(folder)

    # a clone
    write_checkout(upstream)
    write_version(upstream, "2")
    git(upstream, "init", "--quiet")
    commit(upstream, CHANGELOG_md=OLD)
    git(tmp_path, "clone", "--quiet", str(upstream), str(clone))
    write_version(upstream, "3")
    commit(upstream, CHANGELOG_md=NEW)
    said: list[str] = []
    from_clone = Installation(environment=folder, clone=clone)
    plan_of_clone = job.look(invocation, from_clone, nothing)
    done = job.update(invocation, plan_of_clone, from_clone, said.append)
    again = job.look(invocation, from_clone, nothing)
    said_again: list[str] = []
    job.update(invocation, again, from_clone, said_again.append)

    assert (newest.is_up_to_date, plan.is_up_to_date, plan.before, plan.after) == (True, False, "1.0", "1.1")
    assert ("mlxops==1.0\n" in unchanged, "mlxops==1.1\n" in with_package) == (True, True)
    assert (upgraded.before, upgraded.after) == ("1.0", "1.1")
    assert (done.after.split()[0], done.changed) == ("3", ("mlxops 2 → 3",))
    assert any(line.startswith("installing mlxops") for line in said)
    assert "mlxops==1\n" in environment.lock_of(folder)  # as the small clone says
    assert (again.is_up_to_date, said_again) == (True, [])


def test_a_global_installation_is_older_than_its_clone_until_its_wheel_is_built(clone: Path, tmp_path: Path) -> None:
    (clone / "pyproject.toml").touch()
    (clone / "mlxops" / "__pycache__").mkdir()
    for each in clone.rglob("*"):
        os.utime(each, (1000, 1000))
    (tmp_path / "wheels").mkdir()
    without = job._is_older(tmp_path / "wheels", clone)
    wheel = write_package(tmp_path / "wheels", "1.0")
    os.utime(wheel, (2000, 2000))
    built = job._is_older(tmp_path / "wheels", clone)
    (clone / "mlxops" / "__pycache__" / "x.pyc").touch()
    compiled = job._is_older(tmp_path / "wheels", clone)
    checkout.fetch(clone)
    checkout.go_forward(checkout.look(clone))
    pulled = job._is_older(tmp_path / "wheels", clone)

    assert (without, built, compiled, pulled) == (True, False, False, True)


def test_a_global_installation_leads_to_the_clone_that_it_came_from(
    tmp_path: Path, invocation: Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "checkout", lambda: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    (tmp_path / "env").mkdir()
    without = job.installation()
    (tmp_path / "manifest.json").write_text(json.dumps({"checkout": str(tmp_path / "gone")}))
    found = job.installation()

    assert (without.clone, without.prefix) == (None, None)
    assert (found.clone, found.prefix) == (tmp_path / "gone", tmp_path)
    with pytest.raises(Failed, match=r"the clone .* is gone"):
        job.look(invocation, found, nothing)
