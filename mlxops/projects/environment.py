"""Virtual environments: made, filled, repaired and left alone when they are complete.

Standard library only: `install.sh` runs this with whatever Python there is and nothing installed.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlxops import files
from mlxops.errors import Failed, MlxopsError, Refused
from mlxops.projects import pip

Log = Callable[[str], None]

_STAMP, _LOCK, _SCRATCH = ".mlxops.json", ".mlxops.lock", ".mlxops.tmp"

# Of the stamp's keys; an environment with a stamp of another form is taken for a person's.
_FORM = 1

# What it has in each state at least.
_MADE = {"is_ours", "folder", "project", "minor", "platform"}
_KEYS = {"making": {"is_ours"}, "filling": _MADE, "complete": _MADE | {"definition", "extras", "packages"}}

# What a new environment brings along: no reason to keep a broken one.
_BROUGHT_ALONG = {"pip", "setuptools", "wheel"}

_PROBE = """
import importlib.util, json, sys, sysconfig
print(json.dumps({
    "prefix": sys.base_prefix,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "minor": "%d.%d" % sys.version_info[:2],
    "platform": sysconfig.get_platform(),
    "is_old": sys.version_info < (3, 11),
    "has_pip": importlib.util.find_spec("pip") is not None,
}))
"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An environment to be had in `folder`: the project, its files used where they are, with these extras.

    `python` None: the one there is kept while it serves, and a new environment is of the Python at work. `upgrade` asks
    the index for newer versions, also where nothing is missing.
    """

    folder: Path
    project: Path
    extras: frozenset[str] = frozenset()
    python: Path | None = None
    upgrade: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in a folder: its stamp, what its Python says of itself (None: it does not run), its packages.

    `chosen` is what the Python that was asked for says, None where none was. `has_more` is true of a folder that holds
    something, but is no virtual environment.
    """

    stamp: dict[str, Any]
    python: dict[str, Any] | None
    chosen: dict[str, Any] | None
    packages: frozenset[str]
    is_damaged: bool
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about a folder, and why: nothing, install into it, make it again, or leave it to its owner."""

    action: Literal["nothing", "fill", "remake", "refuse"]
    reason: str = ""


def make(wanted: Wanted, *, log: Log) -> None:
    """Have the environment ready; where it is, nothing is written and pip is not asked.

    Two at once: the second waits. Interrupted at any moment, the next call completes it. Raises `Refused` for an
    environment that somebody else made and that does not serve, `Failed` where the disk or pip says no.
    """
    if is_ready(wanted):
        return
    try:
        _make_folder(wanted.folder, log)
        with _lock(wanted.folder, log) as lock:
            _make_locked(wanted, lock, log)
    except OSError as error:
        raise _disk_says_no(wanted.folder, error) from error


def is_ready(wanted: Wanted) -> bool:
    """Whether `make` would do nothing."""
    if _read_stamp(wanted.folder).get("state") != "complete":
        return False
    return decide(_look(wanted), wanted, _definition(wanted.project)).action == "nothing"


def python_of(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / "bin" / "python"


def lock_of(folder: Path) -> str:
    """The packages of an environment, a `name==version` a line, in the form that pip reads."""
    found = {_name(each): each.name.removesuffix(".dist-info").split("-")[1] for each in _distributions(folder)}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def stamp_of(folder: Path) -> dict[str, Any]:
    """What mlxops wrote down of an environment that it made or filled, empty for one that it did not."""
    return _read_stamp(folder)


def is_damaged(folder: Path) -> bool:
    """Whether an installation that was killed left a package half there: pip would take it for installed."""
    leftovers = any(folder.glob("lib/python*/site-packages/~*"))
    return leftovers or not all(_is_whole(each) for each in _distributions(folder))


def version_of(folder: Path) -> str:
    """The version of an environment's Python; raises `Failed` where it does not run."""
    python = _ask(python_of(folder))
    if python is None:
        raise Failed(f"{python_of(folder)} does not run", hint=f"rm -r {folder.name}, then give the command again")
    return str(python["version"])


def decide(found: Found, wanted: Wanted, definition: str) -> Decision:
    """What to do about what was found."""
    misfit = _misfit(found, wanted)
    if not found.stamp:
        others = found.packages - _BROUGHT_ALONG - {_name_of(wanted.project)}
        if misfit and (found.has_more or others):
            return Decision(action="refuse", reason=misfit)
        # Whose it is, nobody says; while it holds nothing of value, a broken one is no loss.
        return Decision(action="remake" if misfit else "fill", reason=misfit or "")
    if misfit is not None:
        return Decision(action="remake" if found.stamp["is_ours"] else "refuse", reason=misfit)
    if found.is_damaged and found.stamp["is_ours"]:
        return Decision(action="remake", reason="an installation was cut off")
    is_complete = (
        not wanted.upgrade
        and found.stamp["state"] == "complete"
        and found.stamp["definition"] == definition
        and wanted.extras <= set(found.stamp["extras"])
        and set(found.stamp["packages"]) <= found.packages
    )
    return Decision(action="nothing" if is_complete else "fill")


def _misfit(found: Found, wanted: Wanted) -> str | None:
    """Why what is there cannot be installed into, as it is."""
    stamp, python = found.stamp, found.python
    if stamp.get("state") == "making":
        return "making it was cut off"
    if python is None:
        return "its Python does not run"
    if python["is_old"]:
        return f"its Python is {python['version']}"
    if not python["has_pip"] and stamp.get("is_ours"):
        return "it has no pip"
    if found.chosen and any(found.chosen[key] != python[key] for key in ("prefix", "minor")):
        return f"its Python is {_in_words(python)}, and {_in_words(found.chosen)} was asked for"
    if not stamp:
        return None
    if (stamp["folder"], stamp["project"]) != (str(wanted.folder), str(wanted.project)):
        return f"it was made in {stamp['folder']}"
    if (stamp["minor"], stamp["platform"]) != (python["minor"], python["platform"]):
        return f"it was made with Python {stamp['minor']} on {stamp['platform']}"
    return None


def _in_words(python: dict[str, Any]) -> str:
    return f"{python['version']} of {python['prefix']}"


# ---------------------------------------------------------------------------------------------- what is there


def _look(wanted: Wanted) -> Found:
    folder = wanted.folder
    stamp = _read_stamp(folder)
    return Found(
        stamp=stamp,
        python=_ask(python_of(folder)),
        chosen=_ask(wanted.python) if wanted.python else None,
        packages=frozenset(_name(each) for each in _distributions(folder)),
        is_damaged=stamp.get("state") == "filling" and is_damaged(folder),
        has_more=not (folder / "pyvenv.cfg").exists() and any(map(_is_anothers, folder.iterdir())),
    )


def _read_stamp(folder: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stamp, dict) or stamp.get("form") != _FORM:
        return {}
    keys = _KEYS.get(str(stamp.get("state")))
    return stamp if keys is not None and keys <= set(stamp) else {}


def _is_anothers(file: Path) -> bool:
    return file.name != _LOCK and not file.name.startswith(f".{_STAMP}.")  # the second is a stamp that was cut off


def _ask(python: Path) -> dict[str, Any] | None:
    try:
        asked = subprocess.run(
            [python, "-I", "-c", _PROBE],
            env=pip.clean(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return dict(json.loads(asked.stdout)) if asked.returncode == 0 else None
    except (OSError, ValueError):
        return None


def _distributions(folder: Path) -> list[Path]:
    return sorted(folder.glob("lib/python*/site-packages/*.dist-info"))


def _name(distribution: Path) -> str:
    return _normal(distribution.name.split("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_whole(distribution: Path) -> bool:
    try:
        rows = list(csv.reader((distribution / "RECORD").read_text(encoding="utf-8").splitlines()))
        return all((distribution.parent / name).stat().st_size == int(size) for name, _, size in rows if size.isdigit())
    except (OSError, ValueError):
        return False


def _definition(project: Path) -> str:
    return files.sha256(project / "pyproject.toml")


def _name_of(project: Path) -> str:
    described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return _normal(described["project"]["name"])


# ------------------------------------------------------------------------------------------------- what is done


def _make_locked(wanted: Wanted, lock: int | None, log: Log) -> None:
    folder = wanted.folder
    found = _look(wanted)
    decision = decide(found, wanted, _definition(wanted.project))
    if decision.action == "nothing":
        return
    if decision.action == "refuse":
        raise Refused(
            f"{folder} was not made here and does not serve: {decision.reason}",
            hint="move it away or remove it, then give the command again",
        )
    extras = wanted.extras | set(found.stamp.get("extras", ()))
    if decision.action == "remake":
        if decision.reason and (found.stamp or found.packages):
            log(f"{folder.name} is made again: {decision.reason}")
        _make_anew(folder, wanted.python or own_python(), lock, log)
    _fill(wanted, extras, lock, log)


def _make_anew(folder: Path, python: Path, lock: int | None, log: Log) -> None:
    _write_stamp(folder, {"state": "making", "is_ours": True})
    for each in folder.iterdir():
        if each.name in (_STAMP, _LOCK):
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    log(f"making {folder.name} with Python {(_ask(python) or {}).get('version', '')} ({python})")
    ended = pip.run([python, "-I", "-m", "venv", folder], scratch=folder / _SCRATCH, lock=lock)
    if ended.code != 0:
        raise Failed(f"{folder} could not be made: {ended.last_line}", hint=pip.what_helps(ended.error_number))


def own_python() -> Path:
    """The Python at work, or the one its environment was made with: the environment may be the one made again."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def _fill(wanted: Wanted, extras: Collection[str], lock: int | None, log: Log) -> None:
    folder, before = wanted.folder, _read_stamp(wanted.folder)
    python = _ask(python_of(folder))
    if python is None:
        raise Failed(f"{python_of(folder)} does not run", hint=f"rm -r {folder.name}, then give the command again")
    stamp = {
        "is_ours": before.get("is_ours", False),
        "folder": str(folder),
        "project": str(wanted.project),
        "definition": _definition(wanted.project),
        "extras": sorted(extras),
        **{key: python[key] for key in ("prefix", "version", "minor", "platform")},
    }
    distributions = _distributions(folder)
    _write_stamp(folder, {**stamp, "state": "filling"})
    with_extras = f" with {', '.join(sorted(extras))}" if extras else ""
    log(f"installing {_name_of(wanted.project)}{with_extras} and what it needs")
    try:
        pip.install(
            python_of(folder),
            wanted.project,
            extras,
            has_pip=python["has_pip"],
            upgrade=wanted.upgrade,
            scratch=folder / _SCRATCH,
            lock=lock,
            log=log,
        )
    except (MlxopsError, KeyboardInterrupt):
        # An environment into which nothing came is as complete as it was.
        if before.get("state") == "complete" and _distributions(folder) == distributions:
            _write_stamp(folder, before)
        raise
    packages = sorted({_name(each) for each in _distributions(folder)})
    if _name_of(wanted.project) not in packages:
        raise Failed(
            f"pip installed {wanted.project.name} elsewhere than in {folder}",
            hint="python3 -m pip config list shows the settings; target, prefix and root do not go with this",
        )
    _write_stamp(folder, {**stamp, "state": "complete", "packages": packages})


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    files.write_text(folder / _STAMP, json.dumps({"form": _FORM, **stamp}, indent=1) + "\n")


def _make_folder(folder: Path, log: Log) -> None:
    """Have a folder there; a file or a link to nowhere in its place gives way."""
    if not folder.is_dir() and (folder.is_symlink() or folder.exists()):
        log(f"{folder.name} is not a folder and is replaced")
        folder.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)


@contextmanager
def _lock(folder: Path, log: Log) -> Iterator[int | None]:
    """Hold the folder's lock, having waited for who has it; None where the file system knows none.

    The descriptor goes to the children that write, so that one who outlives a killed parent still holds it.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor if take(descriptor, log) else None
    finally:
        os.close(descriptor)


def take(descriptor: int, log: Log) -> bool:
    """Lock an open file, having waited for whoever has it; false and a word where that is not possible."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another installation is at work here; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log(f"files cannot be locked here ({error.strerror}), so run one installation at a time")
        return False
    return True


def _disk_says_no(folder: Path, error: OSError) -> Failed:
    return Failed(f"{error.filename or folder} cannot be written: {error.strerror}", hint=pip.what_helps(error.errno))
