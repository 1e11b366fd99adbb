"""uv or pip as a child process: packages into an environment or a folder, what went wrong in one sentence.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import configparser
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from mlxops.errors import Failed

# What a person's variables may tell pip: where packages come from, and how. Others would send them elsewhere, install
# only some of them, or hide why it went wrong.
_FOR_PIP = {
    *("PIP_CACHE_DIR", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_CONFIG_FILE", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"),
    *("PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_BINARY", "PIP_PRE"),
    *("PIP_NO_CACHE_DIR", "PIP_NO_INDEX", "PIP_ONLY_BINARY", "PIP_PREFER_BINARY", "PIP_PROXY", "PIP_RETRIES"),
    *("PIP_TIMEOUT", "PIP_TRUSTED_HOST", "PIP_USE_FEATURE", "PIP_USE_DEPRECATED", "PIP_KEYRING_PROVIDER"),
}
# What points a Python at the libraries of another one; the macOS launcher and `activate` leave some of it behind.
_OF_ANOTHER_PYTHON = {
    *("PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
    *("UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON"),
}

# pip's settings that uv knows, as its options; a list has one option for each word.
_FOR_UV = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
}

_MACOS = "Library/Application Support/pip/pip.conf"
_CONFIG_FILES = ("/etc/pip.conf", f"/{_MACOS}", "~/.pip/pip.conf", f"~/{_MACOS}")

_OLDEST_UV = (0, 5)

# Downloads that are worth a line, in MB, and how much of pip's last lines is shown when it fails.
_LARGE, _SHOWN, _WIDTH = 20.0, 8, 300
_DOWNLOADING = re.compile(r"^\s*Downloading (\S+?)(?:-\d\S*)? \((\d+(?:\.\d+)?) ?Mi?B\)")
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|NameResolutionError|Max retries exceeded|"
    r"error sending request|Failed to fetch"
)
_NOT_TRUSTED = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED|UnknownIssuer|invalid peer certificate")
_NOT_THERE = re.compile(
    r"No matching distribution found for ([^\s;]+)|[Bb]ecause ([^\s;=<>]+)\S* was not found in the (?:provided|package)"
)
_NOISE = re.compile(
    r"\s*($|note: |[×│╰]|\[end of output|error: subprocess-exited|hint: |Looking in |Obtaining |WARNING: Retrying |"
    r"Installing |Checking if build |Getting requirements to build |Preparing |Processing |Collecting |Using cached |"
    r"Downloading |INFO: |Building |Created wheel |Stored in |Successfully built )"
)
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")

# How long pip has to tidy up, in seconds.
_GRACE = 5

_ELSEWHERE = "clone the repository into a folder of yours that can be written"
_ROOM = "make room on the disk, then give the command again"
_WHAT_HELPS = {
    errno.EACCES: _ELSEWHERE,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "ulimit -f unlimited, then give the command again",
    errno.ENOSPC: _ROOM,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
}

OFFLINE = (
    "with a network, on a machine like this one: python3 -m pip download --dest wheels '.[dev]' hatchling editables; "
    "then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels before the command"
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended, and the last lines it said."""

    code: int
    lines: tuple[str, ...]

    @property
    def error_number(self) -> int:
        """The number of the disk's error that it speaks of, 0 where there is none."""
        numbers = [int(number) for line in self.lines for number in _ERROR_NUMBER.findall(line)]
        return next((number for number in reversed(numbers) if number in _WHAT_HELPS), 0)

    @property
    def last_line(self) -> str:
        """What it said last of what went wrong, in one line."""
        errors = [line for line in self.telling if line.startswith("ERROR:")]
        return (errors or self.telling or [f"exit code {self.code}"])[-1].removeprefix("ERROR: ")

    @property
    def telling(self) -> list[str]:
        """The lines without what pip adds around them, and without its tries."""
        return [line.strip() for line in self.lines if not _NOISE.match(line)]


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for an environment's Python: none that would point it at other libraries than its own."""
    return {name: value for name, value in environ.items() if name not in _OF_ANOTHER_PYTHON}


def what_helps(error_number: int | None) -> str | None:
    """What a person can do about an error of the disk."""
    return _WHAT_HELPS.get(error_number or 0)


def uv() -> str | None:
    """The program uv, which installs faster than pip; None where it is not there, or too old for the options used."""
    found = shutil.which("uv")
    return found if found and _is_new(found) else None


@lru_cache
def _is_new(program: str) -> bool:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return False
    version = re.match(r"uv (\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= _OLDEST_UV


def install(
    python: Path, steps: Sequence[Sequence[str]], *, scratch: Path, lock: int | None, log: Callable[[str], None]
) -> None:
    """Give an environment's uv or pip these words, step by step; raises `Failed` with what was said.

    The first word of a step is install or uninstall, the others are options and requirements that both know.
    """
    by_uv = uv()
    settings = _settings()
    if by_uv is None and not _has_pip(python):
        ended = run([python, "-I", "-m", "ensurepip"], scratch=scratch, lock=lock)
        if ended.code != 0:
            raise Failed(f"{python.parents[1]} has no pip, and it cannot be added: {ended.last_line}")

    def hear(line: str) -> None:
        if (found := _DOWNLOADING.match(line)) and float(found[2]) >= _LARGE:
            log(f"  downloading {found[1]} ({float(found[2]):.0f} MB)")
        elif line.startswith(("Installing collected packages", "Prepared ")):
            log("  unpacking")

    for verb, *words in steps:
        if by_uv:
            command = [by_uv, "pip", verb, "--python", str(python), "--no-progress"]
            command += [*(_for_uv(settings) if verb == "install" else []), *words]
        else:
            command = [str(python), "-I", "-m", "pip", verb, "--no-input", "--disable-pip-version-check"]
            command += ["--no-user", "--progress-bar=off"] if verb == "install" else ["--yes"]
            command += [*(["--upgrade-strategy=eager"] if "--upgrade" in words else []), *words]
        ended = run(command, scratch=scratch, lock=lock, heard=hear, more=_patience(settings))
        if ended.code != 0:
            for line in ended.telling[-_SHOWN:]:
                log(f"  {line[:_WIDTH]}")
            raise explain(ended, os.environ)


def build(python: Path, source: Path, folder: Path, *, lock: int | None) -> None:
    """Build the wheel of a source tree into a folder, without what it needs; raises `Failed` with what was said."""
    settings, by_uv = _settings(), uv()
    if by_uv:
        command = [by_uv, "build", "--wheel", "--python", str(python), "--out-dir", str(folder)]
        command += [*_for_uv({**settings, "constraint": ""}), str(source)]
    else:
        command = [str(python), "-I", "-m", "pip", "wheel", "--no-deps", "--no-input", "--progress-bar=off"]
        command += ["--disable-pip-version-check", "--wheel-dir", str(folder), f"{source}/."]
    ended = run(command, scratch=folder / "building", lock=lock, more=_patience(settings))
    if ended.code != 0:
        raise explain(ended, os.environ, what=f"build {source.name}")


def _has_pip(python: Path) -> bool:
    return any(python.parents[1].glob("lib/python*/site-packages/pip/__init__.py"))


def download(package: str, folder: Path, *, use_cache: bool = True, python: Path | None = None) -> None:
    """Download a package's wheel, without what it needs, into a folder; raises `Failed` with what pip said.

    Without pip's own cache it comes from the index again. `python` None: the pip of the Python at work.
    """
    python = python or Path(sys.executable)
    command = [str(python), "-I", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", *([] if use_cache else ["--no-cache-dir"])]
    command += ["--dest", str(folder), package]
    ended = run(command, scratch=folder / "pip", lock=None, more=_patience(_settings()))
    if ended.code == 0:
        return
    if any(line.endswith("No module named pip") for line in ended.lines):
        raise Failed(f"{python} has no pip", hint=f"{shlex.quote(str(python))} -m ensurepip adds it")
    offline = (
        f"with a network: python3 -m pip download --no-deps --dest wheels {package}; "
        "then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels before the command"
    )
    raise explain(ended, os.environ, what=f"download {package}", offline=offline)


def _settings() -> dict[str, str]:
    """What the person has set for pip, in files and in variables, by the names of its options."""
    files = [Path(folder) / "pip/pip.conf" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    files += [Path(path).expanduser() for path in _CONFIG_FILES]
    files += [Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "pip/pip.conf"]
    named = os.environ.get("PIP_CONFIG_FILE")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with suppress(configparser.Error, OSError):  # pip itself says what is wrong with it
        parser.read([] if named == os.devnull else [*files, *([named] if named else [])], encoding="utf-8")
    found = {
        name: value for section in ("global", "install") if section in parser for name, value in parser[section].items()
    }
    variables = {name[4:].lower(): value for name, value in os.environ.items() if name.startswith("PIP_") and value}
    return {name.replace("_", "-"): value for name, value in {**found, **variables}.items()}


def _for_uv(settings: Mapping[str, str]) -> list[str]:
    options = [
        word for name, option in _FOR_UV.items() for value in settings.get(name, "").split() for word in (option, value)
    ]
    is_offline = settings.get("no-index", "0").lower() not in ("", "0", "false", "no", "off")
    # pip takes the best of what all indexes have; uv by itself only what the first one with that name has
    together = ["--index-strategy", "unsafe-best-match"] if "--index" in options else []
    return [*options, *together, *(["--no-index"] if is_offline else [])]


def _patience(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings for a network that does not answer, where the person has set none: the usual ones take over a minute.

    They are variables, since pip does not pass its options on to the pip that fetches what a build needs.
    """
    timeout = settings.get("timeout") or settings.get("default-timeout")
    more = {"UV_HTTP_TIMEOUT": timeout or "15", "UV_NO_PROGRESS": "1"}
    if "retries" not in settings:
        more["PIP_RETRIES"] = more["UV_HTTP_RETRIES"] = "2"
    if cert := settings.get("cert"):
        more["SSL_CERT_FILE"] = cert
    return more if timeout else {**more, "PIP_DEFAULT_TIMEOUT": "8"}


def run(
    command: Sequence[str | Path],
    *,
    scratch: Path,
    lock: int | None,
    heard: Callable[[str], object] = bool,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Ended:
    """Run a child that writes into an environment or a folder: each line it says is `heard`, and it ends when we do.

    It holds the lock too, so that one who outlives us is waited for. Its temporary files are in `scratch`, on the disk
    that must have the room anyway.
    """
    scratch.mkdir(exist_ok=True)
    environment = {
        name: value
        for name, value in clean(os.environ).items()
        # Warnings made errors would end pip in the middle.
        if name != "PYTHONWARNINGS" and (name in _FOR_PIP or not name.startswith("PIP_"))
    }
    lines: deque[str] = deque(maxlen=400)
    child = subprocess.Popen(
        [str(word) for word in command],
        env={**environment, **more, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=() if lock is None else (lock,),
        process_group=0,
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            lines.append(line.rstrip("\n"))
            heard(line)
        code = child.wait()
    finally:
        _end(child)
        shutil.rmtree(scratch, ignore_errors=True)
    return Ended(code=code, lines=tuple(lines))


def _end(child: subprocess.Popen[str]) -> None:
    """End a child that is still at work, with its own children: asked first, since pip tidies up after itself."""
    for asked in (signal.SIGINT, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, asked)
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue
            # It may have gone without waiting for its own.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()


def explain(
    ended: Ended, environ: Mapping[str, str], *, what: str = "install what is needed", offline: str = OFFLINE
) -> Failed:
    """What pip's last lines mean to a person; `what` it was to do, and what helps who is `offline`."""
    said = "\n".join(ended.lines)
    if ended.error_number:
        word = f"[Errno {ended.error_number}]"
        line = next(line for line in reversed(ended.lines) if word in line)
        return Failed(f"the disk cannot be written:{line.partition(word)[2]}", hint=what_helps(ended.error_number))
    if _NOT_TRUSTED.search(said):
        return Failed(
            "the certificate of the package index is not trusted here",
            hint="PIP_CERT=FILE names the certificates of your network",
        )
    if _UNREACHABLE.search(said):
        return Failed("the package index cannot be reached: is there a network?", hint=offline)
    missing = _NOT_THERE.search(said)
    if missing and environ.get("PIP_NO_INDEX"):
        folder = environ.get("PIP_FIND_LINKS") or "PIP_FIND_LINKS, which is not set"
        name = missing[1] or missing[2]
        return Failed(f"PIP_NO_INDEX is set, and no wheel of {name} that fits is in {folder}", hint=offline)
    return Failed(f"it was not possible to {what}: {ended.last_line}")
