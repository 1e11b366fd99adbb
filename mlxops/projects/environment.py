"""Virtual environments: made, filled, repaired and left alone when they are complete.

Standard library only: `install.sh` runs this with whatever Python there is and nothing installed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlxops import files
from mlxops.errors import BadRequest, Failed, MlxopsError, Refused
from mlxops.projects import pip
from mlxops.projects.environment_plan import NAME, Found, Wanted, decide, normal, steps
from mlxops.system import flags, locks

Log = Callable[[str], None]

_STAMP, _LOCK, _SCRATCH = ".mlxops.json", ".mlxops.lock", ".mlxops.tmp"

# Of the stamp's keys; an environment with a stamp of another form is taken for a person's.
_FORM = 1

# What it has in each state at least.
_MADE = {"is_ours", "folder", "project", "minor", "platform"}
_KEYS = {
    "making": {"is_ours"},
    "made": _MADE,
    "filling": _MADE,
    "complete": _MADE | {"definition", "extras", "packages"},
}

_PROBE = """
import glob, importlib.util, json, os, platform, sys
has = lambda name: importlib.util.find_spec(name) is not None
near = [os.path.dirname(importlib.util.find_spec("ensurepip").origin) + "/_bundled"] if has("ensurepip") else []
print(json.dumps({
    "prefix": sys.base_prefix,
    "base": getattr(sys, "_base_executable", sys.executable),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "minor": "%d.%d" % sys.version_info[:2],
    "platform": sys.platform + "-" + platform.machine(),
    "is_old": sys.version_info < (3, 11),
    "has_pip": has("pip"),
    "pip": [each for folder in near + ["/usr/share/python-wheels"] for each in glob.glob(folder + "/pip-*.whl")][:1],
}))
"""


def make(wanted: Wanted, *, log: Log, fill: bool = True) -> None:
    """Have the environment ready; where it is, nothing is written and no installer is asked.

    Without `fill` it need not have its packages. Two at once: the second waits. Interrupted at any moment, the next
    call completes it. Raises `Refused` for an environment that somebody else made and that does not serve, `Failed`
    where the disk or the installer says no.
    """
    if is_ready(wanted):
        return
    try:
        wanted.folder.parent.mkdir(parents=True, exist_ok=True)
        _make_folder(wanted.folder, log)
        with _lock(wanted.folder, log) as lock:
            _make_locked(wanted, lock, log, fill=fill)
    except OSError as error:
        raise _disk_says_no(wanted.folder, error) from error


def is_ready(wanted: Wanted) -> bool:
    """Whether `make` would do nothing."""
    if _read_stamp(wanted.folder).get("state") != "complete" or hidden_files(wanted.folder):
        return False
    return decide(_look(wanted), wanted, _definition(wanted)).action == "nothing"


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


def hidden_files(folder: Path) -> list[Path]:
    """The `.pth` files of an environment that macOS hides, as it does in folders that it syncs: Python skips them."""
    return [each for each in folder.glob("lib/python*/site-packages/*.pth") if flags.is_hidden(each)]


def show_hidden(folder: Path) -> list[Path]:
    """Show those files again, so that Python reads them; which they were."""
    found = hidden_files(folder)
    for each in found:
        flags.show(each)
    return found


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


def check(python: Path) -> None:
    """Raise `BadRequest` for a Python that cannot have an environment."""
    about = _ask(python)
    if about is None:
        raise BadRequest(f"{str(python)!r} does not run as a Python", hint="`--python python3.13`, or the path of one")
    if about["is_old"]:
        raise BadRequest(f"{str(python)!r} is Python {about['version']}, and mlxops needs 3.11 or newer")


# ---------------------------------------------------------------------------------------------- what is there


def _look(wanted: Wanted) -> Found:
    folder = wanted.folder
    stamp = _as_spelled(_read_stamp(folder), {"folder": folder, "project": wanted.source})
    return Found(
        stamp=stamp,
        python=_ask(python_of(folder)),
        chosen=_ask(wanted.python) if wanted.python else None,
        packages=frozenset(_name(each) for each in _distributions(folder)),
        has_more=not (folder / "pyvenv.cfg").exists() and any(map(_is_anothers, folder.iterdir())),
    )


def _as_spelled(stamp: dict[str, Any], places: Mapping[str, Path]) -> dict[str, Any]:
    """The stamp with its paths in the spelling that was typed now, where they are the same places.

    macOS keeps a path as it was typed, and finds a folder by other letters, too.
    """
    same = {
        name: str(path)
        for name, path in places.items()
        if isinstance(stamp.get(name), str) and files.is_same(Path(stamp[name]), path)
    }
    return {**stamp, **same}


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
    return normal(distribution.name.split("-")[0])


def _is_whole(distribution: Path) -> bool:
    try:
        rows = list(csv.reader((distribution / "RECORD").read_text(encoding="utf-8").splitlines()))
        return all((distribution.parent / name).stat().st_size == int(size) for name, _, size in rows if size.isdigit())
    except (OSError, ValueError):
        return False


def _definition(wanted: Wanted) -> str:
    """What changes when other packages are needed."""
    is_wheel = wanted.source.suffix == ".whl"
    return ",".join([files.sha256(wanted.source if is_wheel else wanted.source / "pyproject.toml"), *wanted.light])


# ------------------------------------------------------------------------------------------------- what is done


def _make_locked(wanted: Wanted, lock: int | None, log: Log, *, fill: bool) -> None:
    folder = wanted.folder
    if shown := show_hidden(folder):
        log(f"macOS had hidden {', '.join(each.name for each in shown)} of {folder.name}")
    found = _look(wanted)
    decision = decide(found, wanted, _definition(wanted))
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
        # the Python of the one there, if it still serves; the one at work may be that of another environment
        there = found.python if found.python and not found.python["is_old"] else None
        _make_anew(wanted, wanted.python or (Path(there["base"]) if there else own_python()), lock, log)
    if fill:
        _fill(wanted, extras, lock, log)


def _make_anew(wanted: Wanted, python: Path, lock: int | None, log: Log) -> None:
    folder = wanted.folder
    _write_stamp(folder, {"state": "making", "is_ours": True})
    for each in folder.iterdir():
        if each.name in (_STAMP, _LOCK):
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    about = _ask(python) or {}
    log(f"making {folder.name} with Python {about.get('version', '')} ({python})")
    commands: list[list[str | Path]] = [[python, "-I", "-m", "venv", folder]]
    if (uv := pip.uv()) and about:
        # quicker by seconds, with the pip that this Python brings along
        commands = [[uv, "venv", "--quiet", "--allow-existing", "--python", python, folder]]
        commands += [[uv, "pip", "install", "--python", python_of(folder), "--no-deps", *about["pip"]]] * bool(
            about["pip"]
        )
    for command in commands:
        ended = pip.run(command, scratch=folder / _SCRATCH, lock=lock)
        if ended.code != 0:
            raise Failed(f"{folder} could not be made: {ended.last_line}", hint=pip.what_helps(ended.error_number))
    _write_stamp(folder, {"state": "made", **_made(wanted, is_ours=True)})


def _made(wanted: Wanted, *, is_ours: bool) -> dict[str, Any]:
    python = _ask(python_of(wanted.folder))
    if python is None:
        raise Failed(f"{python_of(wanted.folder)} does not run", hint=f"rm -r {wanted.folder.name}, then do it again")
    about = {key: python[key] for key in ("prefix", "version", "minor", "platform")}
    return {"is_ours": is_ours, "folder": str(wanted.folder), "project": str(wanted.source), **about}


def own_python() -> Path:
    """The Python at work, or the one its environment was made with: the environment may be the one made again."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def _fill(wanted: Wanted, extras: Collection[str], lock: int | None, log: Log) -> None:
    folder, before = wanted.folder, _read_stamp(wanted.folder)
    stamp = {
        **_made(wanted, is_ours=before.get("is_ours", False)),
        "definition": _definition(wanted),
        "extras": sorted(extras),
        **({"backend": backend} if (backend := wanted.backend or before.get("backend")) else {}),
    }
    distributions = _distributions(folder)
    _write_stamp(folder, {**stamp, "state": "filling"})
    with_extras = f" with {', '.join(sorted(extras))}" if extras else ""
    log(f"installing {NAME}{with_extras} and what it needs")
    try:
        pip.install(python_of(folder), steps(wanted, extras), scratch=folder / _SCRATCH, lock=lock, log=log)
    except (MlxopsError, KeyboardInterrupt):
        # An environment into which nothing came is as complete as it was.
        if before.get("state") == "complete" and _distributions(folder) == distributions:
            _write_stamp(folder, before)
        raise
    show_hidden(folder)
    packages = sorted({_name(each) for each in _distributions(folder)})
    if NAME not in packages:
        raise Failed(
            f"{NAME} was installed elsewhere than in {folder}",
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
        if not locks.take(descriptor):
            log("another installation is at work here; waiting for it")
            locks.take(descriptor, wait=True)
    except OSError as error:
        log(f"files cannot be locked here ({error.strerror}), so run one installation at a time")
        return False
    return True


def _disk_says_no(folder: Path, error: OSError) -> Failed:
    return Failed(f"{error.filename or folder} cannot be written: {error.strerror}", hint=pip.what_helps(error.errno))
