"""The global installation: an environment and a wheel in a prefix, programs in ~/.local/bin, a line in one profile.

The manifest names everything outside of the prefix before it is made, so that whatever was interrupted can be completed
and removed. Standard library only, as `environment.py`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from mlxops import files
from mlxops.errors import Failed, Refused
from mlxops.projects import environment, pip, shells
from mlxops.projects.environment_plan import Wanted, normal

Log = Callable[[str], None]

_MANIFEST, _ROOM = "manifest.json", 300_000_000
# -P: the files of the current folder are no modules. A new Python of the system may take the old one away.
_PROGRAM = """\
#!/bin/sh
python={python}
[ -x "$python" ] || {{ printf '%s\\n' {gone} {hint} >&2; exit 1; }}
exec "$python" -P -m {module} "$@"
"""
_MINE = ("env", "wheels", "shell", _MANIFEST)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an installation made. `programs` are files outside of the prefix with the SHA-256 of their text.

    `checkout` is the clone it came from, `folders` those made outside of the prefix, the deepest last, `profile` the
    file that got `line`, and `files` those that were made for that.
    """

    version: str
    checkout: str
    programs: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    profile: str | None = None
    line: str | None = None


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things go: the prefix, the folder of programs, and the home folder with the person's profiles."""

    prefix: Path
    home: Path

    @property
    def programs(self) -> Path:
        """The folder of programs."""
        return self.home / ".local" / "bin"

    @property
    def python(self) -> Path:
        """The Python of the global environment."""
        return environment.python_of(self.prefix / "env")


def install(places: Places, checkout: Path, *, version: str, python: Path | None, log: Log) -> Manifest:
    """Install or complete the global installation; raises `Refused` where something of another's is in the way."""
    before = read(places)
    programs = _programs(places, checkout, before)
    _check(places, before, programs)
    log(f"1/4 preparing {places.prefix}")
    manifest = _manifest(places, before, programs, Manifest(version=version, checkout=str(checkout)))
    places.prefix.mkdir(parents=True, exist_ok=True)
    _write(places, manifest)
    clone = Wanted(folder=places.prefix / "env", source=checkout, light=_light(checkout), python=python)
    environment.make(clone, log=log, fill=False)
    log("2/4 building the wheel of mlxops")
    wheel = _build(places, checkout)
    log("3/4 completing the environment")
    environment.make(replace(clone, source=wheel), log=log)
    log(f"4/4 writing programs into {places.programs}")
    places.programs.mkdir(parents=True, exist_ok=True)
    for path, text in programs.items():
        files.write_text(path, text)
        path.chmod(0o755)
    for name, text in shells.scripts(places.programs, [path.name for path in programs]).items():
        (places.prefix / "shell").mkdir(exist_ok=True)
        files.write_text(places.prefix / "shell" / name, text)
    return manifest


def add_to_profile(places: Places, manifest: Manifest, shell: str, log: Log) -> Manifest:
    """Have the line in the shell's profile, once, and show what was changed."""
    profile, line = shells.profile(shell, places.home), shells.line(shell, places.prefix / "shell")
    missing = [str(each) for each in reversed(profile.parents) if not each.exists()]
    is_new = [] if profile.exists() else [str(profile)]
    manifest = replace(
        manifest,
        profile=str(profile),
        line=line,
        folders=[*manifest.folders, *missing],
        files=[*manifest.files, *is_new],
    )
    _write(places, manifest)
    try:
        text = profile.read_text(encoding="utf-8") if profile.exists() else ""
        if line in text.splitlines():
            log(f"{profile} has the line already")
            return manifest
        profile.parent.mkdir(parents=True, exist_ok=True)
        # a profile may be a link into a folder of settings: its target is written, and the link stays
        with profile.open("a", encoding="utf-8") as file:
            file.write(("" if text.endswith("\n") or not text else "\n") + line + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{profile} cannot be changed: {error}", hint=f"add this line to it yourself: {line}") from error
    log(f"{profile}: added\n  + {line}")
    return manifest


def what_now(places: Places, manifest: Manifest) -> str:
    """What a person does next: the line for a shell that does not find the programs yet, and a project."""
    said = [f"mlx-toolkit {manifest.version} is installed in {places.prefix}"]
    name = shells.of_person_or_none()
    if manifest.profile:
        said += [f"a new terminal has mlx-toolkit and its completion, from the line in {manifest.profile}"]
    else:
        known = [name] if name else list(shells.SHELLS)
        said += ["PATH and completion are one line in the profile of your shell; `--add-to-path` writes it:"]
        said += [
            f"  {shells.profile(each, places.home)}:  {shells.line(each, places.prefix / 'shell')}" for each in known
        ]
    return "\n".join([*said, "then: mlx-toolkit init my-project, and in it mlx-toolkit install-deps"])


def uninstall(places: Places, log: Log) -> None:
    """Remove exactly what was made: programs that nobody changed, the line in the profile, and the prefix's own."""
    manifest = read(places)
    if manifest is None:
        log(f"nothing is installed in {places.prefix}")
        return
    for name, text in manifest.programs.items():
        path = Path(name)
        if _hash_of(path) == text:
            path.unlink()
        elif path.exists():
            log(f"{path} is left: it was changed")
    if manifest.profile and manifest.line:
        _remove_line(Path(manifest.profile), manifest.line, log)
    for path in map(Path, manifest.files):
        if path.is_file() and not path.read_bytes():
            path.unlink()
    for name in _MINE:
        path = places.prefix / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for folder in [places.prefix, *map(Path, reversed(manifest.folders))]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    log(f"removed mlx-toolkit from {places.prefix} and {places.programs}; projects and models stay")


def read(places: Places) -> Manifest | None:
    """The manifest of what is there; None where nothing is. Raises `Failed` for one that cannot be read."""
    path = places.prefix / _MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Failed(f"{path} is damaged", hint=f"rm {shlex.quote(str(path))}, then install again") from error


def _write(places: Places, manifest: Manifest) -> None:
    files.write_text(places.prefix / _MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def _programs(places: Places, checkout: Path, before: Manifest | None) -> dict[Path, str]:
    """The programs by path, with their text; `inv` only where there is no other."""
    modules = {"mlx-toolkit": "mlxops", "mlx-toolkit-update": "mlxops update", "inv": "invoke"}
    inv = places.programs / "inv"
    is_mine = before is not None and str(inv) in before.programs and _hash_of(inv) in (None, before.programs[str(inv)])
    if not is_mine and (inv.exists() or shells.has_program("inv")):
        del modules["inv"]
    again = shlex.join([str(checkout / "install.sh"), "--prefix", str(places.prefix)])
    words = {
        "python": shlex.quote(str(places.python)),
        "gone": shlex.quote(f"the Python of this program does not run any more: {places.python}"),
        "hint": shlex.quote(f"hint: {again} installs it again"),
    }
    return {places.programs / name: _PROGRAM.format(module=module, **words) for name, module in modules.items()}


def _check(places: Places, before: Manifest | None, programs: dict[Path, str]) -> None:
    if before is None and places.prefix.exists() and (not places.prefix.is_dir() or any(places.prefix.iterdir())):
        raise Refused(f"{places.prefix} holds other things", hint="`./install.sh --prefix DIR` installs into another")
    known = {} if before is None else before.programs
    for path in programs:
        if path.exists() and _hash_of(path) not in (known.get(str(path)), sha256(programs[path].encode()).hexdigest()):
            raise _in_the_way(path)
    there = next(each for each in [places.prefix, *places.prefix.parents] if each.exists())
    if (free := shutil.disk_usage(there).free) < _ROOM:
        raise Failed(
            f"{there} has {free // 1_000_000} MB free, and the installation takes about {_ROOM // 1_000_000} MB",
            hint="make room, or `./install.sh --prefix DIR` on another disk",
        )


def _in_the_way(path: Path) -> Refused:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if found := re.match(r"#!/bin/sh\npython=(.+)/env/bin/python", text):
        other = found[1] + ("'" if found[1].startswith("'") else "")
        return Refused(
            f"{path} belongs to the installation in {other}",
            hint=f"./install.sh --prefix {other} --uninstall removes that one",
        )
    return Refused(
        f"{path} is there and was not made here; the older toolkit has a program of this name",
        hint=f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.before')}, then ./install.sh again",
    )


def _manifest(places: Places, before: Manifest | None, programs: dict[Path, str], new: Manifest) -> Manifest:
    """The new manifest with what is outside of the prefix, and what an earlier one says of that."""
    missing = [each for each in [*reversed(places.programs.parents), places.programs] if not each.exists()]
    before = before or new
    return replace(
        new,
        programs={str(path): sha256(text.encode()).hexdigest() for path, text in programs.items()},
        folders=list(dict.fromkeys([*before.folders, *map(str, missing)])),
        files=before.files,
        profile=before.profile,
        line=before.line,
    )


def _build(places: Places, checkout: Path) -> Path:
    """The wheel of the clone in the prefix, in place of the one before."""
    folder = places.prefix / "wheels"
    folder.mkdir(exist_ok=True)
    with files.scratch_folder(folder, ".new") as scratch:
        pip.build(places.python, checkout, scratch, lock=None)
        (built,) = scratch.glob("*.whl")
        wheel = built.replace(folder / built.name)
    for other in folder.glob("*.whl"):
        if other != wheel:
            other.unlink()
    return wheel


def _light(checkout: Path) -> tuple[str, ...]:
    """The requirements of the light packages, with their versions."""
    described = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    names = set(described["tool"]["mlxops"]["light"])
    found = {normal(re.split(r"[^A-Za-z0-9._-]", each)[0]): each for each in described["project"]["dependencies"]}
    return tuple(text for name, text in sorted(found.items()) if name in names)


def _remove_line(profile: Path, line: str, log: Log) -> None:
    try:
        lines = profile.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [each for each in lines if each.rstrip("\n") != line]
        if kept != lines:
            profile.write_text("".join(kept), encoding="utf-8")
            log(f"{profile}: removed\n  - {line}")
    except (OSError, UnicodeDecodeError) as error:
        log(f"{profile} cannot be changed ({error}): remove this line yourself: {line}")


def _hash_of(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
