"""Bringing mlxops to its newest version: looked at, shown, decided, done, and what becomes of unfinished runs.

A clone goes forward to what is upstream, and what was installed from it is installed again; any other installation is
upgraded from the package index. What a person changed is never touched: then it is refused.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlxops
from mlxops import files, registry, resources, words
from mlxops.errors import Busy, Failed, MlxopsError
from mlxops.projects import changelog, checkout, environment, packages, pip, process
from mlxops.projects.checkout import Checkout
from mlxops.projects.environment_plan import Wanted
from mlxops.projects.invocation import Invocation

Say = Callable[[str], None]

_NAME = "mlxops"
_EXACT = ("mlxops", "mlx", "mlx-lm")
"""The packages whose versions a checkpoint names, and a resume compares."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Where the mlxops at work comes from: its environment, its clone, and the prefix of a global installation.

    Without a clone it was installed as a package.
    """

    environment: Path
    clone: Path | None = None
    prefix: Path | None = None


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """What an update would do. `news` are entries of the changelog; `unfinished` and `at_work` runs of the project.

    `after` is None where it is not known before; `commits` is how many there are, None for a package.
    """

    kind: Literal["clone", "package"]
    place: str
    before: str
    after: str | None
    commits: int | None
    news: tuple[str, ...]
    unfinished: tuple[str, ...]
    at_work: tuple[str, ...]
    is_up_to_date: bool


@dataclass(frozen=True, kw_only=True)
class Updated:
    """What an update did. `changed` are packages with both versions that exact resuming depends on."""

    before: str
    after: str
    news: tuple[str, ...]
    changed: tuple[str, ...]
    unfinished: tuple[str, ...]


def installation() -> Installation:
    """The one at work."""
    here = Path(sys.prefix).resolve()
    clone, prefix = resources.checkout(), None
    source = environment.stamp_of(here).get("project", "")
    # install.sh keeps a manifest beside the environment and the wheels that it makes
    for folder in (here.parent, Path(source).parent.parent if source.endswith(".whl") else here.parent):
        try:
            made_from = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["checkout"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        prefix, clone = folder, clone or Path(made_from)
    return Installation(environment=here, clone=clone, prefix=prefix)


def look(invocation: Invocation, found: Installation, say: Say) -> UpdatePlan:
    """Ask upstream, or the package index, what is new; nothing that is installed changes.

    Raises `Failed` where neither can be asked.
    """
    at_work, unfinished = _runs(invocation)
    at_work += _elsewhere(invocation, found)
    if found.clone is None:
        say("asking the package index")
        newest = _newest(found)
        is_new = newest is not None
        return UpdatePlan(
            kind="package", place=str(found.environment), before=_version_in(found.environment), after=newest,
            commits=None, news=(), unfinished=unfinished, at_work=at_work, is_up_to_date=not is_new,
        )  # fmt: skip
    if not found.clone.is_dir():
        raise Failed(
            f"the clone {str(found.clone)!r} that this was installed from is gone",
            hint="clone the repository again, and `./install.sh` there",
        )
    say(f"fetching what is new for {found.clone}")
    checkout.fetch(found.clone)
    seen = checkout.look(found.clone)
    return UpdatePlan(
        kind="clone", place=seen.folder, before=_in_words(found.clone, seen.commit),
        after=_in_words(found.clone, seen.upstream_commit or seen.commit), commits=seen.behind,
        news=changelog.news(seen.changelog, seen.upstream_changelog) if seen.behind else (), unfinished=unfinished,
        at_work=at_work, is_up_to_date=seen.behind == 0,
    )  # fmt: skip


def check(plan: UpdatePlan, found: Installation) -> None:
    """Raise `Refused` where an update would lose what a person changed, or change the code under a run at work."""
    if found.clone is not None and (reason := checkout.obstacle(checkout.look(found.clone))):
        raise reason
    if plan.at_work and not plan.is_up_to_date:
        raise Busy(
            f"{words.listed(plan.at_work, 3)}: at work, and an update changes the code under it",
            hint="`inv train.stop RUN` has it save and stop; the same command resumes it afterwards",
        )


def update(invocation: Invocation, plan: UpdatePlan, found: Installation, say: Say) -> Updated:
    """Do it; raises `Failed` where git, the installer or the disk says no, and the same command completes it."""
    before = _versions(invocation)
    if found.clone is not None:
        seen: Checkout = checkout.look(found.clone)
        if not plan.is_up_to_date:
            checkout.go_forward(seen)
        # also where it is up to date: the installation of the last time may have been cut off
        _install_again(invocation, found, found.clone, say, is_needed=not plan.is_up_to_date)
        after = _in_words(found.clone, checkout.look(found.clone).commit)
    else:
        if not plan.is_up_to_date:
            _upgrade(found, say)
        after = _version_in(found.environment)
    now = _versions(invocation)
    # a clone's version is that of its files, whatever was written down when it was installed
    before, now = ({**each, _NAME: told.split()[0]} for each, told in ((before, plan.before), (now, after)))
    return Updated(
        before=plan.before,
        after=after,
        news=plan.news,
        changed=tuple(
            f"{name} {before[name]} → {now[name]}" for name in now if before.get(name, now[name]) != now[name]
        ),
        unfinished=plan.unfinished,
    )


# a clone -------------------------------------------------------------------------------------------------------------


def _in_words(clone: Path, commit: str) -> str:
    text = checkout.run(clone, "show", f"{commit}:mlxops/__init__.py")
    version = re.search(r'__version__ = "([^"]+)"', text)
    return f"{version[1] if version else '?'} ({commit[:9]})"


def _install_again(invocation: Invocation, found: Installation, clone: Path, say: Say, *, is_needed: bool) -> None:
    """Bring what was installed from a clone to it: the global installation, and the environment at work.

    The new code does it, in processes of its own. What was installed by hand is left alone unless it `is_needed`.
    """
    root = invocation.project.root
    if found.prefix is not None and (is_needed or _is_older(found.prefix / "wheels", clone)):
        _run([str(clone / "install.sh"), "--prefix", str(found.prefix)], clone, found, say)
    own = root / ".venv"
    if (
        own.is_dir()
        and not own.is_symlink()
        and files.is_same(own, found.environment)
        and not files.is_same(root, clone)
    ):
        python = environment.python_of(found.prefix / "env" if found.prefix else found.environment)
        _run([str(python), "-P", "-m", _NAME, "install-deps"], root, found, say)
        return
    stamp = environment.stamp_of(found.environment)
    is_one = (found.environment / "pyvenv.cfg").is_file()
    if found.prefix is None and is_one and (is_needed or stamp):
        wanted = Wanted(folder=found.environment, source=clone, extras=frozenset(stamp.get("extras", ())))
        environment.make(wanted, log=say)


def _is_older(wheels: Path, clone: Path) -> bool:
    """Whether the wheel of a global installation was built before the clone got its files."""
    built = max((each.stat().st_mtime for each in wheels.glob("*.whl")), default=0.0)
    parts = (clone / name for name in (_NAME, "db", "templates"))
    sources = (each for part in parts for each in part.rglob("*") if each.is_file() and each.suffix != ".pyc")
    return any(each.stat().st_mtime > built for each in (*sources, clone / "pyproject.toml"))


def _run(command: list[str], folder: Path, found: Installation, say: Say) -> None:
    # the project's own environment is the one that is made: it is not entered
    more = {"MLXOPS_HANDED_OVER_TO": str(folder / ".venv")}
    with tempfile.TemporaryDirectory() as scratch:
        ended = pip.run(
            command, scratch=Path(scratch) / "run", lock=None, heard=lambda line: say(line.rstrip()), more=more
        )
    if ended.code != 0:
        raise Failed(
            f"{Path(command[0]).name} ended with {ended.code}: {ended.last_line}",
            hint="the clone is at the new version; the same command completes the installation",
        )


# a package -----------------------------------------------------------------------------------------------------------


def _newest(found: Installation) -> str | None:
    """The version that an upgrade would install, None where the one here is the newest."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        _pip(found, ["--dry-run", "--no-deps", "--quiet", "--report", str(report)], Path(scratch) / "pip")
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return next((str(each["metadata"]["version"]) for each in items), None)


def _upgrade(found: Installation, say: Say) -> None:
    say(f"upgrading mlxops in {found.environment}")
    with tempfile.TemporaryDirectory() as scratch:
        _pip(found, [], Path(scratch) / "pip")


def _pip(found: Installation, options: list[str], scratch: Path) -> None:
    python = str(environment.python_of(found.environment))
    command = [python, "-I", "-m", "pip", "install", "--upgrade", "--no-input", "--disable-pip-version-check"]
    ended = pip.run([*command, "--progress-bar=off", *options, _NAME], scratch=scratch, lock=None)
    if ended.code == 0:
        return
    if any(line.endswith("No module named pip") for line in ended.lines):
        raise Failed(f"{python} has no pip", hint=f"`uv pip install --python {python} --upgrade {_NAME}`")
    offline = "a folder of wheels serves, too: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels before the command"
    raise pip.explain(ended, os.environ, what=f"upgrade {_NAME}", offline=offline)


def _version_in(folder: Path) -> str:
    lines = environment.lock_of(folder).splitlines()
    found = (line.partition("==")[2] for line in lines if line.startswith(f"{_NAME}=="))
    return next(found, mlxops.__version__)


# the project's runs --------------------------------------------------------------------------------------------------


def _runs(invocation: Invocation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the runs at work, and of those that are not finished; none without a registry."""
    try:
        with registry.open_read_only(invocation.project.registry_path) as db:
            rows = registry.list_runs(db)
            dead = {each["run_id"] for each in registry.attempts_at_work(db) if each["is_dead"]}
    except MlxopsError:
        return (), ()
    at_work = tuple(row["name"] for row in rows if row["status"] == "running" and row["id"] not in dead)
    unfinished = (
        row["name"]
        for row in rows
        if row["status"] != "completed" and row["iteration"] < row["target_iterations"] and not row["imported_from"]
    )
    return at_work, tuple(name for name in unfinished if name not in at_work)


def _elsewhere(invocation: Invocation, found: Installation) -> tuple[str, ...]:
    """The trainings of other projects that use the same code."""
    changed = [found.environment, *([found.prefix / "env"] if found.prefix else [])]

    def uses_it(folder: Path) -> bool:
        """Whether its code changes: an environment with the wheel of the time before keeps that."""
        source = environment.stamp_of(folder.resolve()).get("project")
        is_of_clone = None not in (source, found.clone) and files.is_same(Path(str(source)), Path(str(found.clone)))
        return is_of_clone or any(files.is_same(folder, each) for each in changed)

    root = invocation.project.root
    trainings = process.trainings(uses_it)
    return tuple(f"process {pid} in {folder}" for pid, folder in trainings if not files.is_below(folder, root))


def _versions(invocation: Invocation) -> Mapping[str, str]:
    found = packages.installed(invocation.project.root, invocation.blas).versions
    return {name: found[name] for name in _EXACT if name in found}
